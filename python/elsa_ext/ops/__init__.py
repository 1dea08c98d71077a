"""The ops: one module each, with its functional API, fake kernels, derivatives, autocast and vmap."""

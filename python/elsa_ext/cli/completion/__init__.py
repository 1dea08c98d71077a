"""``elsa-ext completion``: the script by which a shell completes our command line."""

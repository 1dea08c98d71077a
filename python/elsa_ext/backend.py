"""Which implementation answers a call: the native kernels, or the plain-PyTorch formula."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from ._library import CUDA_STATUS, has_kernel

Backend = Literal["native", "torch"]

_NATIVE_DEVICES = {
    op: ("cpu", "meta", *(("cuda",) if has_kernel(op, "cuda") else ())) for op in ("ghost_head", "hadamard_attention")
}

_backend: Backend = "native"
_warned: set[str] = set()


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the implementation of every elsa_ext op inside a ``with`` block.

    Args:
        name: ``"native"``, the compiled kernels (the default), or ``"torch"``, the formula in plain PyTorch, which
            runs on every device and is what an ONNX export traces.

    Raises:
        ValueError: ``name`` is neither.

    Example:
        >>> with elsa_ext.use_backend("torch"):
        ...     out = elsa_ext.ghost_head(value, attn, kernel_size=7)
    """
    global _backend
    if name not in ("native", "torch"):
        raise ValueError(f"use_backend: name must be 'native' or 'torch', got {name!r}")
    previous, _backend = _backend, name
    try:
        yield
    finally:
        _backend = previous


def is_native(op: str, tensor: torch.Tensor) -> bool:
    """Tell whether a call of ``op`` on ``tensor`` goes to a kernel of ours; warn once for a device that has none."""
    if _backend != "native":
        return False
    device = tensor.device.type
    if device in _NATIVE_DEVICES[op]:
        return True
    if device not in _warned and not torch.compiler.is_compiling():
        _warned.add(device)
        reason = f" ({CUDA_STATUS})" if device == "cuda" else ""
        message = f"elsa_ext has no {op} kernel for {device}{reason}: it takes the plain-PyTorch formula"
        warnings.warn(message, stacklevel=3)
    return False

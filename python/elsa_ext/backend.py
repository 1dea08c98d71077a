"""Which implementation answers a call: the native kernels, or the plain-PyTorch formula."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch

from ._library import CUDA_STATUS, cuda_device_problem
from ._ops import add_op_namespace_prefix
from ._torch_private import constant_result, has_kernel

Backend = Literal["native", "torch"]

# The devices on which kernels of ours answer, for every op that is registered.
_NATIVE_DEVICES: dict[str, tuple[str, ...]] = {}

_backend: ContextVar[Backend] = ContextVar("elsa_ext backend", default="native")

# Blocks of use_backend that are open in any thread. torch.compile reads no context variable before 2.14, but compiles
# again when this number changes.
_open_blocks = 0
_counting = threading.Lock()
_warned: set[str] = set()


@contextmanager
def use_backend(name: Backend) -> Iterator[None]:
    """Choose the implementation of every elsa_ext op inside a ``with`` block, for this thread or task alone.

    Code that ``torch.compile`` made inside a block may answer other threads for as long as a block is open.

    Args:
        name: ``"native"``, the compiled kernels (the default), or ``"torch"``, the formula in plain PyTorch, which
            runs on every device and is what an ONNX export traces.

    Raises:
        ValueError: ``name`` is neither.

    Example:
        >>> with elsa_ext.use_backend("torch"):
        ...     out = elsa_ext.ghost_head(value, attn, kernel_size=7)
    """
    if name not in ("native", "torch"):
        raise ValueError(f"use_backend: name must be 'native' or 'torch', got {name!r}")
    previous = _backend.get()
    _backend.set(name)
    _count_blocks(1)
    try:
        yield
    finally:
        _count_blocks(-1)
        _backend.set(previous)


def _count_blocks(change: int) -> None:
    global _open_blocks
    with _counting:
        _open_blocks += change


@constant_result
def _chosen() -> Backend:
    return _backend.get()


def find_kernels(op: str) -> None:
    """Note on which devices the libraries that are loaded have kernels of ``op``."""
    name = add_op_namespace_prefix(op)
    _NATIVE_DEVICES[op] = ("meta", *(device for device in ("cpu", "cuda") if has_kernel(name, device)))


def is_native(op: str, tensor: torch.Tensor) -> bool:
    """Tell whether a call of ``op`` on ``tensor`` goes to a kernel of ours; warn once for a device that has none."""
    if _open_blocks and _chosen() != "native":
        return False
    device = tensor.device
    problem = None
    if device.type not in _NATIVE_DEVICES[op]:
        problem = CUDA_STATUS if device.type == "cuda" else ""
    elif device.type == "cuda":
        problem = _cuda_device_problem(device.index)
    if problem is None:
        return True
    reason = f"{device.type} ({problem})" if problem else device.type
    if reason not in _warned and not torch.compiler.is_compiling():
        _warned.add(reason)
        message = f"elsa_ext has no {op} kernel for {reason}: it takes the plain-PyTorch formula"
        warnings.warn(message, stacklevel=4)  # the caller of the public function
    return False


@constant_result
def _cuda_device_problem(index: int) -> str | None:
    return cuda_device_problem(index)

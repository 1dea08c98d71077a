"""Checks that ops have in common, with the messages of the native ops."""

import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**31 - 1  # its square fits in 64 bits
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def error(op: str, message: str) -> RuntimeError:
    """Return the error ``elsa::<op>: <message>``; its message is made on failure alone, sizes may be symbolic."""
    return RuntimeError(f"elsa::{op}: {message}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def show(size: Sequence[int]) -> str:
    """Return a size as messages have it."""
    return str(tuple(size))


def check_tensors(op: str, required: dict[str, bool], tensors: Sequence[Any]) -> None:
    """Check that each argument is a dense tensor, or None if it may be: what the dispatcher says does not name them."""
    for (argument, is_required), tensor in zip(required.items(), tensors, strict=True):
        if isinstance(tensor, Tensor):
            if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
                kind = "nested" if tensor.is_nested else tensor.dtype if tensor.is_quantized else tensor.layout
                raise error(op, f"{argument} must be a dense tensor, got {kind}")
        elif is_required or tensor is not None:
            raise TypeError(f"elsa::{op}: {argument} must be a torch.Tensor, got {type(tensor).__name__}")


def whole(op: str, argument: str, value: Any) -> Any:
    """Return an integer of any kind, NumPy's too, as one that the dispatcher takes; symbolic ones stay symbolic."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"elsa::{op}: {argument} must be an integer, got {value!r}")


def real(op: str, argument: str, value: Any) -> Any:
    """Return a number of any kind, NumPy's too, as a float; what is none is for the dispatcher to refuse."""
    if type(value) is float or not isinstance(value, numbers.Real):
        return value
    return float(value)


def as_given(op: str, argument: str, value: Any) -> Any:
    """Return an option of a type that the dispatcher checks by itself."""
    return value


def word(op: str, argument: str, value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError(f"elsa::{op}: {argument} must be a string, got {value!r}")
    return value


def whole_pair(op: str, argument: str, value: Any) -> list[Any]:
    """Return two integers, of one for both axes or of one for each."""
    if not isinstance(value, (list, tuple)):
        return [whole(op, argument, value)] * 2
    if len(value) != 2:
        raise TypeError(f"elsa::{op}: {argument} must be an integer or two, got {value!r}")
    return [whole(op, argument, one) for one in value]


CONVERTERS: dict[str, Callable[[str, str, Any], Any]] = {
    "int": whole,
    "float": real,
    "str": word,
    "List[int]": whole_pair,
}


def check_dtype(op: str, argument: str, tensor: Tensor) -> None:
    """Check that the ops compute in the dtype of ``tensor``."""
    if tensor.dtype not in _DTYPES:
        expected = "float64, float32, bfloat16 or float16"
        raise error(op, f"{argument} must be {expected}, got {_name(tensor.dtype)}")


def check_device(op: str, argument: str, tensor: Tensor, like_argument: str, like: Tensor) -> None:
    """Check that ``tensor`` is where ``like`` is."""
    if tensor.device != like.device:
        raise error(op, f"{argument} must be on {like.device} as {like_argument} is, got {tensor.device}")


def check_like(op: str, argument: str, tensor: Tensor, like_argument: str, like: Tensor) -> None:
    """Check that ``tensor`` has the dtype and the device of ``like``."""
    if tensor.dtype != like.dtype:
        expected, got = _name(like.dtype), _name(tensor.dtype)
        raise error(op, f"{argument} must be {expected} as {like_argument} is, got {got}")
    check_device(op, argument, tensor, like_argument, like)


def check_size(op: str, argument: str, tensor: Tensor, expected: Sequence[int]) -> None:
    """Check the size of ``tensor``."""
    if tensor.shape != tuple(expected):
        raise error(op, f"{argument} must have shape {show(expected)}, got {show(tensor.shape)}")


def check_beside(
    op: str, argument: str, tensor: Tensor | None, like_argument: str, like: Tensor, size: Sequence[int]
) -> None:
    """Check dtype, device and size of a tensor that has those of ``like``; None passes."""
    if tensor is not None:
        check_like(op, argument, tensor, like_argument, like)
        check_size(op, argument, tensor, size)


def check_geometry(op: str, kernel_size: int, dilation: int, stride: int) -> None:
    """Check the geometry of a K × K neighbourhood."""
    if not 0 < kernel_size <= LARGEST or kernel_size % 2 == 0:
        raise error(op, f"kernel_size must be odd and from 1 to {LARGEST}, got {kernel_size}")
    if dilation <= 0:
        raise error(op, f"dilation must be positive, got {dilation}")
    if stride <= 0:
        raise error(op, f"stride must be positive, got {stride}")


def memory_format(like: Tensor) -> torch.memory_format:
    """Return the memory format that the native ops give a result for ``like``."""
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    return torch.channels_last if channels_last else torch.contiguous_format


def empty_in_format(like: Tensor, size: Sequence[int]) -> Tensor:
    """Return an empty tensor of ``size`` as the native ops allocate a result for ``like``."""
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format(like))

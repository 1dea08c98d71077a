"""Argument checks with the messages of the native ops, for the fake kernels and the plain-PyTorch formula."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_LARGEST = 2**31 - 1  # its square fits in 64 bits
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def error(op: str, message: str) -> RuntimeError:
    """Return the error ``elsa::<op>: <message>``; its message is made on failure alone, sizes may be symbolic."""
    return RuntimeError(f"elsa::{op}: {message}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _show(size: Sequence[int]) -> str:
    return str(tuple(size))


def check_tensors(op: str, required: dict[str, Tensor], optional: dict[str, Tensor | None]) -> None:
    """Check that every argument is a dense tensor: what the dispatcher says of others does not name them."""
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    for argument, tensor in {**required, **given}.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"elsa::{op}: {argument} must be a torch.Tensor, got {type(tensor).__name__}")
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
            kind = "nested" if tensor.is_nested else tensor.dtype if tensor.is_quantized else tensor.layout
            raise error(op, f"{argument} must be a dense tensor, got {kind}")


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


def _check_dtype(op: str, argument: str, tensor: Tensor) -> None:
    if tensor.dtype not in _DTYPES:
        expected = "float64, float32, bfloat16 or float16"
        raise error(op, f"{argument} must be {expected}, got {_name(tensor.dtype)}")


def _check_device(op: str, argument: str, tensor: Tensor, like_argument: str, like: Tensor) -> None:
    if tensor.device != like.device:
        raise error(op, f"{argument} must be on {like.device} as {like_argument} is, got {tensor.device}")


def _check_like(op: str, argument: str, tensor: Tensor, like_argument: str, like: Tensor) -> None:
    if tensor.dtype != like.dtype:
        expected, got = _name(like.dtype), _name(tensor.dtype)
        raise error(op, f"{argument} must be {expected} as {like_argument} is, got {got}")
    _check_device(op, argument, tensor, like_argument, like)


def _check_size(op: str, argument: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tensor.shape != expected:
        raise error(op, f"{argument} must have shape {_show(expected)}, got {_show(tensor.shape)}")


def _check_geometry(op: str, kernel_size: int, dilation: int, stride: int) -> None:
    if not 0 < kernel_size <= _LARGEST or kernel_size % 2 == 0:
        raise error(op, f"kernel_size must be odd and from 1 to {_LARGEST}, got {kernel_size}")
    if dilation <= 0:
        raise error(op, f"dilation must be positive, got {dilation}")
    if stride <= 0:
        raise error(op, f"stride must be positive, got {stride}")


def _check_matrix(op: str, argument: str, matrix: Tensor | None, value: Tensor, kernel_size: int) -> None:
    if matrix is None:
        return
    shared = (value.shape[1], kernel_size, kernel_size)
    per_sample = (value.shape[0], *shared)
    if not (matrix.shape == shared or matrix.shape == per_sample):
        expected = f"(C, K, K) = {_show(shared)} or (B, C, K, K) = {_show(per_sample)}"
        raise error(op, f"{argument} must have shape {expected}, got {_show(matrix.shape)}")
    if not (matrix.dtype == torch.float32 and value.dtype.itemsize == 2):
        _check_like(op, argument, matrix, "value", value)
    _check_device(op, argument, matrix, "value", value)


def check_ghost_head(
    op: str,
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    kernel_size: int,
    dilation: int,
    stride: int,
) -> tuple[int, int, int, int]:
    """Check the arguments of ghost_head and return the size of its output."""
    _check_geometry(op, kernel_size, dilation, stride)
    _check_dtype(op, "value", value)
    if value.dim() != 4:
        raise error(op, f"value must have 4 dimensions (B, C, H, W), got {value.dim()}")
    batch, channels, height, width = value.shape
    if not (height > 0 and width > 0):
        raise error(op, f"value must have at least one row and one column, got {_show(value.shape)}")
    _check_like(op, "attn", attn, "value", value)
    if attn.dim() != 4:
        raise error(op, f"attn must have 4 dimensions (B, heads·K², H//stride, W//stride), got {attn.dim()}")
    taps, attn_channels = kernel_size**2, attn.shape[1]
    if attn_channels == 0 or attn_channels % taps != 0:
        raise error(op, f"attn has {attn_channels} channels, not a multiple of kernel_size² = {taps}")
    heads = attn_channels // taps
    if channels % heads != 0:
        raise error(op, f"value has {channels} channels, not a multiple of the {heads} heads of attn")
    _check_size(op, "attn", attn, (batch, attn_channels, height // stride, width // stride))
    _check_matrix(op, "ghost_mul", ghost_mul, value, kernel_size)
    _check_matrix(op, "ghost_add", ghost_add, value, kernel_size)
    return batch, channels, height // stride, width // stride


class HadamardParameters(NamedTuple):
    """The weights of hadamard_attention, in the order of its schema."""

    conv_weight: Tensor
    conv_bias: Tensor | None
    proj_weight: Tensor
    proj_bias: Tensor | None


def check_hadamard_attention(
    op: str,
    query: Tensor,
    key: Tensor,
    parameters: HadamardParameters,
    heads: int,
    dilation: int,
    stride: int,
    proj_groups: int,
) -> tuple[int, int, int, int]:
    """Check the arguments of hadamard_attention and return the size of its output."""
    _check_dtype(op, "query", query)
    if query.dim() != 4:
        raise error(op, f"query must have 4 dimensions (B, C, H, W), got {query.dim()}")
    batch, channels, height, width = query.shape
    if not (channels > 0 and height > 0 and width > 0):
        raise error(op, f"query must have at least one channel, row and column, got {_show(query.shape)}")
    _check_parameter(op, "key", key, query, tuple(query.shape))

    conv = parameters.conv_weight.shape
    if len(conv) != 4 or conv[2] != conv[3] or conv[3] % 2 == 0:
        raise error(op, f"conv_weight must have shape (C, C/groups, K, K) with K odd, got {_show(conv)}")
    kernel_size, group_width = conv[3], conv[1]
    _check_geometry(op, kernel_size, dilation, stride)
    if group_width == 0 or channels % group_width != 0:
        expected = f"not a divisor of the {channels} channels of query"
        raise error(op, f"conv_weight has {group_width} channels a group, {expected}")
    _check_parameter(op, "conv_weight", parameters.conv_weight, query, (channels, *conv[1:]))
    _check_parameter(op, "conv_bias", parameters.conv_bias, query, (channels,))

    if not 0 < heads <= _LARGEST:
        raise error(op, f"heads must be from 1 to {_LARGEST}, got {heads}")
    attn_channels = heads * kernel_size**2
    if attn_channels >= 2**63:
        raise error(op, f"heads·K² must fit in 64 bits, got heads = {heads} and K = {kernel_size}")
    if proj_groups <= 0 or channels % proj_groups != 0 or attn_channels % proj_groups != 0:
        expected = f"{channels} channels and heads·K² = {attn_channels}"
        raise error(op, f"proj_groups must divide {expected}, got {proj_groups}")
    trailing = (1, 1) if parameters.proj_weight.dim() == 4 else ()
    proj = (attn_channels, channels // proj_groups, *trailing)
    _check_parameter(op, "proj_weight", parameters.proj_weight, query, proj)
    _check_parameter(op, "proj_bias", parameters.proj_bias, query, (attn_channels,))
    return batch, attn_channels, height // stride, width // stride


def _check_parameter(op: str, argument: str, parameter: Tensor | None, query: Tensor, size: tuple[int, ...]) -> None:
    if parameter is not None:
        _check_like(op, argument, parameter, "query", query)
        _check_size(op, argument, parameter, size)


def check_gradient(op: str, argument: str, grad: Tensor, like_argument: str, like: Tensor, size: Sequence[int]) -> None:
    """Check a tensor that belongs to an output of the forward op: its dtype, device and size."""
    _check_like(op, argument, grad, like_argument, like)
    _check_size(op, argument, grad, tuple(size))


def memory_format(like: Tensor) -> torch.memory_format:
    """Return the memory format that the native ops give a result for ``like``."""
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    return torch.channels_last if channels_last else torch.contiguous_format


def empty_in_format(like: Tensor, size: Sequence[int]) -> Tensor:
    """Return an empty tensor of ``size`` as the native ops allocate a result for ``like``."""
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format(like))

"""What a call is checked for in natten's words; the ops see maps, in which a wrong shape may be a right one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...nn.checks import per_axis
from .absent import PLACE


def sizes(name: str, argument: str, given: Any, axes: int) -> list[Any]:
    """Return a value for each axis, of one for all or one for each."""
    return per_axis(f"{PLACE}: {name}", argument, given, axes)


def check_attention(name: str, axes: int, query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check tensors (B, …, heads, channels); heads of ``query`` may share those of ``key`` and ``value``."""
    for argument, tensor in (("query", query), ("key", key), ("value", value)):
        _check_rank(name, argument, tensor, axes)
    heads, shared = query.shape[-2], key.shape[-2]
    if shared == 0 or heads % shared != 0:
        raise ValueError(f"{PLACE}: {name}: key must have heads that divide the {heads} of query, got {shared}")
    _check_shape(name, "key", key, (*query.shape[:-2], shared, query.shape[-1]))
    _check_shape(name, "value", value, (*key.shape[:-1], value.shape[-1]))


def check_products(name: str, axes: int, query: Tensor, key: Tensor) -> None:
    """Check tensors (B, heads, …, channels)."""
    _check_rank(name, "query", query, axes)
    _check_shape(name, "key", key, query.shape)


def check_weights(name: str, axes: int, attn: Tensor, value: Tensor, kernel_size: Sequence[int]) -> None:
    """Check an attention map (B, heads, …, taps) and values (B, heads, …, channels)."""
    _check_rank(name, "value", value, axes)
    _check_shape(name, "attn", attn, (*value.shape[:-1], math.prod(kernel_size)))


def bias(name: str, axes: int, rpb: Tensor | None, query: Tensor, kernel_size: Sequence[int]) -> Tensor | None:
    """Return ``rpb`` as the ops take it: in query's dtype, or float32 beside 16 bits, and that of sequences as a row.

    ``query`` is (B, heads, …, channels), and ``kernel_size`` of both axes.
    """
    if rpb is None:
        return None
    _check_shape(name, "rpb", rpb, (query.shape[1], *(2 * size - 1 for size in kernel_size[-axes:])))
    if not (rpb.dtype == torch.float32 and query.dtype.itemsize == 2):
        rpb = rpb.to(query.dtype)
    return rpb.unsqueeze(1) if axes == 1 else rpb


def _check_rank(name: str, argument: str, tensor: Tensor, axes: int) -> None:
    if tensor.ndim != axes + 3:
        raise ValueError(f"{PLACE}: {name}: {argument} must have {axes + 3} dimensions, got {tensor.ndim}")


def _check_shape(name: str, argument: str, tensor: Tensor, expected: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(expected):
        raise ValueError(f"{PLACE}: {name}: {argument} must have shape {tuple(expected)}, got {tuple(tensor.shape)}")

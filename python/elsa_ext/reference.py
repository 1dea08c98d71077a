"""The oracle: both ops and their gradients as scalar loops in float64, on NumPy arrays.

It is slow and shares no code with the kernels: what the tests hold every backend against.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from . import _C
from .ops.checks import HadamardParameters, check_ghost_head, check_gradient, check_hadamard_attention

Array = NDArray[np.float64]


def _arrays(*values: ArrayLike | None) -> list[Any]:
    return [None if value is None else np.asarray(value, dtype=np.float64, order="C") for value in values]


def _shapes(arrays: list[Any]) -> list[Any]:
    return [None if array is None else torch.empty(array.shape, dtype=torch.float64, device="meta") for array in arrays]


def ghost_head(
    value: ArrayLike,
    attn: ArrayLike,
    ghost_mul: ArrayLike | None = None,
    ghost_add: ArrayLike | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
) -> Array:
    """Compute :func:`elsa_ext.ghost_head` in float64; same shapes and errors."""
    arrays, options = _arrays(value, attn, ghost_mul, ghost_add), (kernel_size, dilation, stride)
    value_shape, attn_shape, mul_shape, add_shape = _shapes(arrays)
    check_ghost_head("ghost_head", value_shape, attn_shape, mul_shape, add_shape, *options)
    return _C.reference.ghost_head(*arrays, *options)


def ghost_head_backward(
    grad: ArrayLike,
    value: ArrayLike,
    attn: ArrayLike,
    ghost_mul: ArrayLike | None = None,
    ghost_add: ArrayLike | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
) -> tuple[Array, Array, Array | None, Array | None]:
    """Compute the gradients of value, attn, ghost_mul and ghost_add; None for a matrix that is None."""
    op, options = "ghost_head_backward", (kernel_size, dilation, stride)
    arrays = _arrays(grad, value, attn, ghost_mul, ghost_add)
    grad_shape, value_shape, attn_shape, mul_shape, add_shape = _shapes(arrays)
    size = check_ghost_head(op, value_shape, attn_shape, mul_shape, add_shape, *options)
    check_gradient(op, "grad", grad_shape, "value", value_shape, size)
    return _C.reference.ghost_head_backward(*arrays, *options)


def hadamard_attention(
    query: ArrayLike,
    key: ArrayLike,
    conv_weight: ArrayLike,
    conv_bias: ArrayLike | None,
    proj_weight: ArrayLike,
    proj_bias: ArrayLike | None,
    *,
    heads: int,
    scale: float = 1.0,
    dilation: int = 1,
    stride: int = 1,
    proj_groups: int = 1,
) -> Array:
    """Compute :func:`elsa_ext.hadamard_attention` in float64; same shapes and errors."""
    arrays = _arrays(query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    query_shape, key_shape, *parameter_shapes = _shapes(arrays)
    parameters = HadamardParameters(*parameter_shapes)
    op = "hadamard_attention"
    check_hadamard_attention(op, query_shape, key_shape, parameters, heads, dilation, stride, proj_groups)
    return _C.reference.hadamard_attention(*arrays, heads, scale, dilation, stride, proj_groups)


def hadamard_attention_backward(
    grad: ArrayLike,
    query: ArrayLike,
    key: ArrayLike,
    conv_weight: ArrayLike,
    conv_bias: ArrayLike | None,
    proj_weight: ArrayLike,
    proj_bias: ArrayLike | None,
    *,
    heads: int,
    scale: float = 1.0,
    dilation: int = 1,
    stride: int = 1,
    proj_groups: int = 1,
) -> tuple[Array, Array, Array, Array | None, Array, Array | None]:
    """Compute the gradients of the six tensors; None for a bias that is None."""
    op = "hadamard_attention_backward"
    arrays = _arrays(grad, query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    grad_shape, query_shape, key_shape, *parameter_shapes = _shapes(arrays)
    parameters = HadamardParameters(*parameter_shapes)
    size = check_hadamard_attention(op, query_shape, key_shape, parameters, heads, dilation, stride, proj_groups)
    check_gradient(op, "grad", grad_shape, "query", query_shape, size)
    return _C.reference.hadamard_attention_backward(*arrays, heads, scale, dilation, stride, proj_groups)

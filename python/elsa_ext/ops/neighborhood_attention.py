"""Neighborhood attention: every query attends to the keys of its neighbourhood, and no attention map is kept."""

from typing import Any

import torch
from torch import Tensor

from .checks import check_like, check_size, error, memory_format
from .local import (
    Flags,
    Pair,
    accumulated,
    bias_rank,
    both_axes,
    check_local,
    flags,
    logits_formula,
    neighbouring,
    products,
)
from .op import Op
from .registration import register

__all__ = ["NeighborhoodAttentionFunction", "neighborhood_attention"]


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    *,
    heads: int,
    kernel_size: Pair,
    dilation: Pair = 1,
    scale: float = 1.0,
    border: str = "zeros",
    window_stride: Pair = 1,
    causal: Flags = False,
) -> Tensor:
    """Let every query attend to its neighbourhood: the softmax of its logits, and the values under it.

    ``out[b,h,c,i] = Σ_t softmax_t(logit[b,h,t,i]) · value[b,h,c,j(i,t)]``, with the logits and the neighbours j(i, t)
    of :func:`elsa_ext.neighborhood_logits`. Beyond the map, the value is 0. On the CPU, a tile of the map stays in the
    caches from the logits to the result; the backward makes them again.

    Args:
        query: (B, C, H, W) in float64, float32, bfloat16 or float16, its channels head by head. Contiguous,
            channels_last, or a channel slice of a wider channels_last tensor; nothing is copied.
        key: Like ``query``.
        value: (B, Cv, H, W); query's dtype.
        bias: (heads, Kh·Kw), one for every tap, or (heads, 2·Kh − 1, 2·Kw − 1), one for every relative position; either
            also with a batch dimension in front. Query's dtype, or float32 beside 16 bits.
        heads: Divides C and Cv.
        kernel_size: K, one number or (Kh, Kw); even ones too. For maps of one dimension H and Kh are 1.
        dilation: Distance of neighbours, in pixels; one number or one for each axis, as what follows.
        scale: Of the products, often (C / heads)^−½.
        border: ``"zeros"``, ``"mask"``, ``"circular"``, or NATTEN's ``"shift"``, which needs K·d ≤ length.
        window_stride: From 1 to K; more than 1 with ``"shift"`` alone.
        causal: With ``"shift"`` alone.

    Returns:
        (B, Cv, H, W) in query's dtype and memory format. 16-bit inputs are accumulated in float32. The result does not
        depend on the number of threads.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or an option is of the wrong type.

    Source:
        Hassani et al., "Neighborhood Attention Transformer", arXiv 2204.07143.
    """
    return OP(
        query,
        key,
        value,
        bias,
        heads=heads,
        kernel_size=kernel_size,
        dilation=dilation,
        scale=scale,
        border=border,
        window_stride=window_stride,
        causal=flags(causal),
    )


def check(op: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, **options: Any) -> tuple[int, ...]:
    """Check the arguments and return the size of the result."""
    check_local(op, query, key, bias, **options)
    check_like(op, "value", value, "query", query)
    if value.dim() != 4:
        raise error(op, f"value must have 4 dimensions (B, C, H, W), got {value.dim()}")
    batch, _, height, width = query.shape
    check_size(op, "value", value, (batch, value.shape[1], height, width))
    if value.shape[1] % options["heads"] != 0:
        raise error(op, f"value has {value.shape[1]} channels, not a multiple of the {options['heads']} heads")
    return tuple(value.shape)


def formula(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *, heads: int, scale: float, **options: Any
) -> Tensor:
    """Gather the neighbours of every key and value, and attend."""
    y, x = both_axes(query, **options)
    wide_query, wide_key, wide_value, wide_bias = accumulated(query, key, value, bias)
    logits = logits_formula(wide_query, wide_key, wide_bias, y, x, heads=heads, scale=scale)
    by_pixel = logits.transpose(3, 4)
    attn = by_pixel.flatten(4).softmax(-1).reshape(by_pixel.shape).transpose(3, 4)
    out = (attn[:, :, None] * neighbouring(wide_value, heads, y, x)).sum((4, 6)).flatten(1, 2)
    return out.to(value.dtype).clone(memory_format=memory_format(query))


def multiply_adds(*, query: Any, value: Any, kernel_size: Any, **other: Any) -> int:
    """Count 1 per tap, pixel, and channel of query and of value."""
    return products(query, query[1] + value[1], kernel_size)


def backward_multiply_adds(
    *,
    query: Any,
    value: Any,
    bias: Any,
    kernel_size: Any,
    heads: int,
    need_query: bool,
    need_key: bool,
    need_value: bool,
    need_bias: bool,
    **other: Any,
) -> int:
    """Count the logits, which are made again, and the gradients that are asked for with what they need."""
    to_bias = need_bias and bias is not None
    to_logits = need_query or need_key or to_bias
    if not (to_logits or need_value):
        return 0
    of_query = 1 + need_query + need_key
    return products(query, of_query * query[1] + (to_logits + need_value) * value[1] + to_bias * heads, kernel_size)


OP = register(
    Op(
        neighborhood_attention,
        check=check,
        formula=formula,
        multiply_adds=multiply_adds,
        backward_multiply_adds=backward_multiply_adds,
        maps=("query", "key", "value"),
        per_sample={"bias": bias_rank},
        casts=("query", "key", "value"),
    )
)
NeighborhoodAttentionFunction: type[torch.autograd.Function]
NeighborhoodAttentionFunction, NeighborhoodAttentionBackwardFunction = OP.functions

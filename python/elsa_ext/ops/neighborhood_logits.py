"""Neighborhood logits: the products of every query with the keys of its neighbourhood."""

from typing import Any

import torch
from torch import Tensor

from .checks import memory_format
from .local import Flags, Pair, accumulated, bias_rank, both_axes, check_local, flags, logits_formula, products
from .op import Op
from .registration import register

__all__ = ["NeighborhoodLogitsFunction", "neighborhood_logits"]


def neighborhood_logits(
    query: Tensor,
    key: Tensor,
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
    """Multiply every query with the keys of its neighbourhood.

    ``logit[b,h,t,i] = scale · Σ_c query[b,h,c,i] · key[b,h,c,j(i,t)] + bias[h,t,i]``, −∞ where tap t does not count.
    What tap t of output i reads, j(i, t), is a matter of the border. Along an axis of some length, with K taps at
    dilation d:

    - ``"zeros"``: i + (t − K // 2)·d; beyond the map the key is 0, and the tap counts.
    - ``"mask"``: the same; beyond the map the tap does not count.
    - ``"circular"``: the same modulo the length.
    - ``"shift"``: the window is moved until it lies inside, as in NATTEN. ``window_stride`` outputs share a window, and
      with ``causal`` it ends at the output, and taps after it do not count.

    Args:
        query: (B, C, H, W) in float64, float32, bfloat16 or float16, its channels head by head. Contiguous,
            channels_last, or a channel slice of a wider channels_last tensor; nothing is copied.
        key: Like ``query``.
        bias: (heads, Kh·Kw), one for every tap, or (heads, 2·Kh − 1, 2·Kw − 1), one for every relative position
            (j − i) / d + K − 1; either also with a batch dimension in front. Query's dtype, or float32 beside 16 bits.
        heads: Divides C.
        kernel_size: K, one number or (Kh, Kw); even ones too. For maps of one dimension H and Kh are 1.
        dilation: Distance of neighbours, in pixels; one number or one for each axis, as what follows.
        scale: Of the products, often (C / heads)^−½.
        border: See above. ``"shift"`` needs K·d ≤ length.
        window_stride: From 1 to K; more than 1 with ``"shift"`` alone.
        causal: With ``"shift"`` alone.

    Returns:
        (B, heads·Kh·Kw, H, W), head-major, then row-major taps, in query's dtype and memory format, as
        :func:`elsa_ext.ghost_head` takes ``attn`` after a softmax over the taps.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or an option is of the wrong type.

    Source:
        Hassani et al., "Neighborhood Attention Transformer", arXiv 2204.07143; the borders "zeros" and "mask" are those
        of Ramachandran et al., arXiv 1906.05909, and of Shi, arXiv 2311.17132.
    """
    return OP(
        query,
        key,
        bias,
        heads=heads,
        kernel_size=kernel_size,
        dilation=dilation,
        scale=scale,
        border=border,
        window_stride=window_stride,
        causal=flags(causal),
    )


def check(op: str, query: Tensor, key: Tensor, bias: Tensor | None, **options: Any) -> tuple[int, int, int, int]:
    """Check the arguments and return the size of the result."""
    check_local(op, query, key, bias, **options)
    rows, columns = options["kernel_size"]
    return query.shape[0], options["heads"] * rows * columns, query.shape[2], query.shape[3]


def formula(query: Tensor, key: Tensor, bias: Tensor | None, *, heads: int, scale: float, **options: Any) -> Tensor:
    """Gather the neighbours of every key, and multiply."""
    y, x = both_axes(query, **options)
    wide_query, wide_key, wide_bias = accumulated(query, key, bias)
    logits = logits_formula(wide_query, wide_key, wide_bias, y, x, heads=heads, scale=scale)
    out = logits.permute(0, 1, 3, 5, 2, 4).flatten(1, 3).to(query.dtype)
    return out.clone(memory_format=memory_format(query))


def multiply_adds(*, query: Any, kernel_size: Any, **other: Any) -> int:
    """Count 1 per tap, channel and pixel."""
    return products(query, query[1], kernel_size)


def backward_multiply_adds(
    *,
    query: Any,
    bias: Any,
    heads: int,
    kernel_size: Any,
    need_query: bool,
    need_key: bool,
    need_bias: bool,
    **other: Any,
) -> int:
    """Count the gradients of query and key as the forward, and for that of bias 1 per tap, head and pixel."""
    to_bias = need_bias and bias is not None
    return products(query, (need_query + need_key) * query[1] + to_bias * heads, kernel_size)


OP = register(
    Op(
        neighborhood_logits,
        check=check,
        formula=formula,
        multiply_adds=multiply_adds,
        backward_multiply_adds=backward_multiply_adds,
        maps=("query", "key"),
        per_sample={"bias": bias_rank},
        casts=("query", "key"),
    )
)
NeighborhoodLogitsFunction: type[torch.autograd.Function]
NeighborhoodLogitsFunction, NeighborhoodLogitsBackwardFunction = OP.functions

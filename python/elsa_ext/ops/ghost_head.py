"""Ghost head: the neighbours of every pixel under a filter per channel, made of one attention map per head."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_device, check_dtype, check_like, check_size, error, memory_format, show
from .formula import effective_dilation, empty_result
from .local import Flags, Pair, accumulated, both_axes, check_neighbourhood, flags, neighbouring, outer
from .op import Op, Term
from .registration import register

__all__ = ["GhostHeadFunction", "ghost_head"]


def ghost_head(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None = None,
    ghost_add: Tensor | None = None,
    *,
    kernel_size: Pair,
    dilation: Pair = 1,
    stride: Pair = 1,
    border: str = "zeros",
    window_stride: Pair = 1,
    causal: Flags = False,
) -> Tensor:
    """Sum the K × K neighbours of every pixel under a filter per channel, made of one attention map per head.

    ``out[b,c,y,x] = Σ_ij (ghost_mul[c,i,j] · attn[b,h(c),i,j,y,x] + ghost_add[c,i,j]) · value[b,c,y',x']`` with
    ``y' = s·y + (i-r)·d`` and ``x' = s·x + (j-r)·d``,
    radius r = K // 2, dilation d, stride s and head h(c) = c // (C / heads); zero outside the map. Other borders have
    other y' and x', those of :func:`elsa_ext.neighborhood_logits` for an output at (s·y, s·x), and a tap that does not
    count has no weight.

    Args:
        value: (B, C, H, W) in float64, float32, bfloat16 or float16. Contiguous, channels_last, or a channel slice of a
            wider channels_last tensor; nothing is copied.
        attn: (B, heads·K², H // stride, W // stride), head-major, then row-major K × K; value's dtype.
        ghost_mul: (C, K, K), or (B, C, K, K) for one per sample; value's dtype, or float32 beside a 16-bit value.
            None means 1.
        ghost_add: Like ``ghost_mul``. None means 0.
        kernel_size: K, one number or (Kh, Kw); even ones too. Kh·Kw stands for K² above, and (Kh, Kw) for (K, K).
        dilation: Distance of neighbours, in pixels; one number or one for each axis, as what follows.
        stride: Distance of output pixels, in pixels of value.
        border: ``"zeros"``, ``"mask"``, which is the same here, ``"circular"``, or NATTEN's ``"shift"``, which needs
            K·d ≤ length.
        window_stride: From 1 to K; more than 1 with ``"shift"`` alone.
        causal: With ``"shift"`` alone.

    Returns:
        (B, C, H // stride, W // stride) in value's dtype and memory format. 16-bit inputs are accumulated in float32
        and rounded once. The result does not depend on the number of threads.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or an option is of the wrong type.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.3.
    """
    return OP(
        value,
        attn,
        ghost_mul,
        ghost_add,
        kernel_size=kernel_size,
        dilation=dilation,
        stride=stride,
        border=border,
        window_stride=window_stride,
        causal=flags(causal),
    )


def check(
    op: str,
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    *,
    stride: Sequence[int],
    **around: Any,
) -> tuple[int, int, int, int]:
    """Check the arguments and return the size of the result."""
    check_dtype(op, "value", value)
    if value.dim() != 4:
        raise error(op, f"value must have 4 dimensions (B, C, H, W), got {value.dim()}")
    batch, channels, height, width = value.shape
    if not (height > 0 and width > 0):
        raise error(op, f"value must have at least one row and one column, got {show(value.shape)}")
    check_like(op, "attn", attn, "value", value)
    if attn.dim() != 4:
        raise error(op, f"attn must have 4 dimensions (B, heads·K², H//stride, W//stride), got {attn.dim()}")
    check_neighbourhood(op, height, width, **around)
    if not all(step > 0 for step in stride):
        raise error(op, f"stride must be positive, got {show(stride)}")
    rows, columns = around["kernel_size"]
    taps, attn_channels = rows * columns, attn.shape[1]
    if attn_channels == 0 or attn_channels % taps != 0:
        product = "kernel_size² = " if rows == columns else "the product of kernel_size, "
        raise error(op, f"attn has {attn_channels} channels, not a multiple of {product}{taps}")
    heads = attn_channels // taps
    if channels % heads != 0:
        raise error(op, f"value has {channels} channels, not a multiple of the {heads} heads of attn")
    out_size = (height // stride[0], width // stride[1])
    check_size(op, "attn", attn, (batch, attn_channels, *out_size))
    _check_matrix(op, "ghost_mul", ghost_mul, value, rows, columns)
    _check_matrix(op, "ghost_add", ghost_add, value, rows, columns)
    return batch, channels, *out_size


def _check_matrix(op: str, argument: str, matrix: Tensor | None, value: Tensor, rows: int, columns: int) -> None:
    if matrix is None:
        return
    shared = (value.shape[1], rows, columns)
    per_sample = (value.shape[0], *shared)
    if not (matrix.shape == shared or matrix.shape == per_sample):
        expected = f"(C, K, K) = {show(shared)} or (B, C, K, K) = {show(per_sample)}"
        raise error(op, f"{argument} must have shape {expected}, got {show(matrix.shape)}")
    if not (matrix.dtype == torch.float32 and value.dtype.itemsize == 2):
        check_like(op, argument, matrix, "value", value)
    check_device(op, argument, matrix, "value", value)


def formula(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    *,
    stride: Sequence[int],
    **around: Any,
) -> Tensor:
    """Sum the neighbours of every pixel of ``value`` under ``ghost_mul · attn + ghost_add``."""
    batch, channels, height, width = value.shape
    out_size = (batch, channels, height // stride[0], width // stride[1])
    if value.numel() == 0 or out_size[2] == 0 or out_size[3] == 0:
        return empty_result(out_size, value, attn, ghost_mul, ghost_add)
    if around["border"] in ("zeros", "mask") and all(size % 2 == 1 for size in around["kernel_size"]):
        out = _unfolded(value, attn, ghost_mul, ghost_add, around["kernel_size"], around["dilation"], stride)
    else:
        out = _gathered(value, attn, ghost_mul, ghost_add, stride=stride, **around)
    return out.reshape(out_size).to(value.dtype).clone(memory_format=memory_format(value))


def _unfolded(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Unfold ``value`` into its neighbours, with zeros around the map; returns (B, heads, C/heads, H, W)."""
    batch, channels, height, width = value.shape
    taps, (out_height, out_width) = math.prod(kernel_size), attn.shape[2:]
    heads = attn.shape[1] // taps
    split = (heads, channels // heads, taps)
    steps = tuple(effective_dilation(step, height, width) for step in dilation)
    padding = tuple(size // 2 * step for size, step in zip(kernel_size, steps, strict=True))
    # Unfold rounds the output size up where the op rounds it down: the last row and column may be one too many.
    patches = F.unfold(value, tuple(kernel_size), steps, padding, tuple(stride))
    patches = patches.view(batch, *split, (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1)
    patches = patches[..., :out_height, :out_width]
    weight = attn.reshape(batch, heads, 1, taps, out_height, out_width)
    if ghost_mul is not None:
        weight = weight * ghost_mul.reshape(-1, *split, 1, 1)
    if ghost_add is not None:
        weight = weight + ghost_add.reshape(-1, *split, 1, 1)
    return (weight * patches).sum(3)


def _gathered(value: Tensor, attn: Tensor, ghost_mul: Tensor | None, ghost_add: Tensor | None, **around: Any) -> Tensor:
    """Gather the neighbours of ``value`` at any border; returns (B, heads, C/heads, H, W)."""
    rows, columns = around["kernel_size"]
    y, x = both_axes(value, **around)
    value, attn, ghost_mul, ghost_add = accumulated(value, attn, ghost_mul, ghost_add)
    heads = attn.shape[1] // (rows * columns)
    weight = attn.reshape(attn.shape[0], heads, 1, rows, columns, *attn.shape[2:]).permute(0, 1, 2, 5, 3, 6, 4)
    by_tap = (heads, value.shape[1] // heads, 1, rows, 1, columns)
    if ghost_mul is not None:
        weight = weight * ghost_mul.reshape(-1, *by_tap)
    if ghost_add is not None:
        weight = weight + ghost_add.reshape(-1, *by_tap)
    counts = outer(y.counts, x.counts)
    if counts is not None:
        weight = weight.where(counts, torch.zeros((), dtype=weight.dtype, device=weight.device))
    return (weight * neighbouring(value, heads, y, x)).sum((4, 6))


def terms(
    value: Tensor,
    attn: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    to_value: Tensor | None,
    to_attn: Tensor | None,
    to_mul: Tensor | None,
    to_add: Tensor | None,
) -> list[Term]:
    """Write the derivative of the ghost head along directions as a sum of ghost heads.

    It is linear in value and in the weight mul · attn + add: each term has one of them replaced by its direction.
    ``⟨grad, …⟩`` of the sum is the derivative of the backward as well, since second derivatives commute.
    """
    has_mul, has_add = mul is not None, add is not None
    sums: list[Term] = []
    if to_value is not None:
        sums.append(((to_value, attn, mul, add), (False, True, has_mul, has_add)))
    if to_attn is not None:
        sums.append(((value, to_attn, mul, None), (True, False, has_mul, False)))
    if to_mul is not None and has_mul:
        sums.append(((value, attn, to_mul, to_add if has_add else None), (True, True, False, False)))
    elif to_add is not None and has_add:
        sums.append(((value, torch.zeros_like(attn), None, to_add), (True, False, False, False)))
    return sums


def multiply_adds(*, value: Any, attn: Any, ghost_mul: Any, ghost_add: Any, kernel_size: Any, **other: Any) -> int:
    """Count 2 per tap, channel and output pixel, making the weight and using it; without a matrix the latter alone."""
    per_tap = 1 if ghost_mul is None and ghost_add is None else 2
    return per_tap * _taps(value, attn, kernel_size)


def backward_multiply_adds(*, need_value: bool, need_attn: bool, need_mul: bool, need_add: bool, **forward: Any) -> int:
    """Count, for the gradients that are asked for, that of value as the forward, and 1 for the sum of each other.

    With mul, which attn's gradient is multiplied by and whose own is multiplied by attn, the product ``grad · value``
    is 1 more, shared by the three; without, the sums are made of it.
    """
    to_mul = need_mul and forward["ghost_mul"] is not None
    to_add = need_add and forward["ghost_add"] is not None
    product = forward["ghost_mul"] is not None and (need_attn or to_mul)
    sums = need_attn + to_mul + to_add + product
    to_value = multiply_adds(**forward) if need_value else 0
    return to_value + sums * _taps(forward["value"], forward["attn"], forward["kernel_size"])


def _taps(value: Any, attn: Any, kernel_size: Sequence[int]) -> int:
    """Return taps × channels × output pixels."""
    batch, _, height, width = attn
    return batch * height * width * math.prod(kernel_size) * value[1]


OP = register(
    Op(
        ghost_head,
        check=check,
        formula=formula,
        terms=terms,
        multiply_adds=multiply_adds,
        backward_multiply_adds=backward_multiply_adds,
        maps=("value", "attn"),
        per_sample={"ghost_mul": 3, "ghost_add": 3},
        casts=("value", "attn"),
    )
)
GhostHeadFunction: type[torch.autograd.Function]
GhostHeadFunction, GhostHeadBackwardFunction = OP.functions

"""Hadamard attention: a K × K attention map for every head and pixel, from the product of query and key."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import LARGEST, check_beside, check_dtype, check_geometry, error, memory_format, show
from .formula import effective_dilation, empty_result, pullback
from .op import Op
from .registration import register

__all__ = ["HadamardAttentionFunction", "hadamard_attention"]


def hadamard_attention(
    query: Tensor,
    key: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    heads: int,
    scale: float = 1.0,
    dilation: int = 1,
    stride: int = 1,
    proj_groups: int = 1,
) -> Tensor:
    """Make a K × K attention map for every head and pixel from the product of query and key.

    ``attn = softmax_K²( Conv1x1( GELU( GroupConv_KxK( pool_stride( scale · query ⊙ key )))))``, where pool is the
    average over stride × stride pixels and both convolutions keep the size of their input.

    Args:
        query: (B, C, H, W) in float64, float32, bfloat16 or float16. Contiguous, channels_last, or a channel slice of a
            wider channels_last tensor.
        key: Like ``query``.
        conv_weight: (C, C / groups, K, K), K odd; query's dtype.
        conv_bias: (C,) or None.
        proj_weight: (heads·K², C / proj_groups), or with a trailing 1 × 1.
        proj_bias: (heads·K²,) or None.
        heads: Number of attention maps a pixel.
        scale: Factor of the product.
        dilation: Distance of neighbours, in pixels of the pooled map.
        stride: Side of the pooled squares, in pixels.
        proj_groups: Groups of the 1 × 1 convolution.

    Returns:
        (B, heads·K², H // stride, W // stride), head-major, then row-major K × K, in query's dtype and memory format,
        as :func:`elsa_ext.ghost_head` takes it. Every head's map sums to 1. 16-bit inputs are computed in float32 and
        rounded once. The result does not depend on the number of threads.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or a number is not one.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.2.
    """
    return OP(
        query,
        key,
        conv_weight,
        conv_bias,
        proj_weight,
        proj_bias,
        heads=heads,
        scale=scale,
        dilation=dilation,
        stride=stride,
        proj_groups=proj_groups,
    )


def check(
    op: str,
    query: Tensor,
    key: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    heads: int,
    scale: float,
    dilation: int,
    stride: int,
    proj_groups: int,
) -> tuple[int, int, int, int]:
    """Check the arguments and return the size of the result."""
    check_dtype(op, "query", query)
    if query.dim() != 4:
        raise error(op, f"query must have 4 dimensions (B, C, H, W), got {query.dim()}")
    batch, channels, height, width = query.shape
    if not (channels > 0 and height > 0 and width > 0):
        raise error(op, f"query must have at least one channel, row and column, got {show(query.shape)}")
    check_beside(op, "key", key, "query", query, query.shape)

    conv = conv_weight.shape
    if len(conv) != 4 or conv[2] != conv[3] or conv[3] % 2 == 0:
        raise error(op, f"conv_weight must have shape (C, C/groups, K, K) with K odd, got {show(conv)}")
    kernel_size, group_width = conv[3], conv[1]
    check_geometry(op, kernel_size, dilation, stride)
    if group_width == 0 or channels % group_width != 0:
        expected = f"not a divisor of the {channels} channels of query"
        raise error(op, f"conv_weight has {group_width} channels a group, {expected}")
    check_beside(op, "conv_weight", conv_weight, "query", query, (channels, *conv[1:]))
    check_beside(op, "conv_bias", conv_bias, "query", query, (channels,))

    if not 0 < heads <= LARGEST:
        raise error(op, f"heads must be from 1 to {LARGEST}, got {heads}")
    attn_channels = heads * kernel_size**2
    if attn_channels >= 2**63:
        raise error(op, f"heads·K² must fit in 64 bits, got heads = {heads} and K = {kernel_size}")
    if proj_groups <= 0 or channels % proj_groups != 0 or attn_channels % proj_groups != 0:
        expected = f"{channels} channels and heads·K² = {attn_channels}"
        raise error(op, f"proj_groups must divide {expected}, got {proj_groups}")
    trailing = (1, 1) if proj_weight.dim() == 4 else ()
    proj = (attn_channels, channels // proj_groups, *trailing)
    check_beside(op, "proj_weight", proj_weight, "query", query, proj)
    check_beside(op, "proj_bias", proj_bias, "query", query, (attn_channels,))
    return batch, attn_channels, height // stride, width // stride


def _logits(
    query: Tensor,
    key: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    scale: float,
    dilation: int,
    stride: int,
    proj_groups: int,
    conv2d: Callable[..., Tensor] = F.conv2d,
) -> Tensor:
    """Map ``scale · query ⊙ key`` to the attention logits, (B, heads·K², H//stride, W//stride)."""
    product = query * key * scale
    if stride > 1:
        product = F.avg_pool2d(product, stride)
    dilation = effective_dilation(dilation, *query.shape[2:])
    radius = conv_weight.shape[-1] // 2 * dilation
    groups = query.shape[1] // conv_weight.shape[1]
    hidden = F.gelu(conv2d(product, conv_weight, conv_bias, padding=radius, dilation=dilation, groups=groups))
    return conv2d(hidden, proj_weight.reshape(*proj_weight.shape[:2], 1, 1), proj_bias, groups=proj_groups)


def formula(
    query: Tensor,
    key: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    heads: int,
    scale: float,
    dilation: int,
    stride: int,
    proj_groups: int,
) -> Tensor:
    """Take the softmax of the logits over the K² taps of every head."""
    tensors = (query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    out_size = (query.shape[2] // stride, query.shape[3] // stride)
    if query.numel() == 0 or 0 in out_size:
        size = (query.shape[0], proj_weight.shape[0], *out_size)
        return empty_result(size, *tensors)
    logits = _logits(*tensors, scale=scale, dilation=dilation, stride=stride, proj_groups=proj_groups)
    attn = logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
    return attn.clone(memory_format=memory_format(query))


def _unfolded_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Convolve by unfolding: unlike ``F.conv2d``, its second derivative can be traced with symbolic sizes."""
    batch, _, height, width = input.shape
    rows = weight.reshape(groups, weight.shape[0] // groups, math.prod(weight.shape[1:]))
    patches = F.unfold(input, weight.shape[-1], dilation, padding).view(batch, groups, rows.shape[2], height * width)
    out = torch.matmul(rows, patches).view(batch, weight.shape[0], height, width)
    return out if bias is None else out + bias.view(-1, 1, 1)


def gradients(
    grad: Tensor,
    attn: Tensor,
    query: Tensor,
    key: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    proj_weight: Tensor,
    proj_bias: Tensor | None,
    *,
    heads: int,
    scale: float,
    dilation: int,
    stride: int,
    proj_groups: int,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of the six tensors, given the result ``attn``; None for a bias that is None."""
    by_head, grad_by_head = attn.unflatten(1, (heads, -1)), grad.unflatten(1, (heads, -1))
    grad_logits = by_head * (grad_by_head - (by_head * grad_by_head).sum(2, keepdim=True))

    def logits(*tensors: Any) -> tuple[Tensor]:
        options: dict[str, Any] = {"dilation": dilation, "stride": stride, "proj_groups": proj_groups}
        return (_logits(*tensors, scale=scale, **options, conv2d=_unfolded_conv2d),)

    tensors = (query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    return pullback(logits, tensors, (grad_logits.flatten(1, 2),))


def multiply_adds(*, query: Any, conv_weight: Any, proj_weight: Any, stride: int, **other: Any) -> int:
    """Count the two convolutions; their borders count as if the map went on."""
    return _pixels(query, stride) * (math.prod(conv_weight) + math.prod(proj_weight))


def backward_multiply_adds(
    *,
    query: Any,
    conv_weight: Any,
    conv_bias: Any,
    proj_weight: Any,
    stride: int,
    need_query: bool,
    need_key: bool,
    need_conv_weight: bool,
    need_conv_bias: bool,
    need_proj_weight: bool,
    **other: Any,
) -> int:
    """Count each convolution once for the gradient of its input, and once for that of its weight, if asked for."""
    need_product = need_query or need_key
    need_hidden = need_product or need_conv_weight or (need_conv_bias and conv_bias is not None)
    conv = (need_product + need_conv_weight) * math.prod(conv_weight)
    proj = (need_hidden + need_proj_weight) * math.prod(proj_weight)
    return _pixels(query, stride) * (conv + proj)


def _pixels(query: Any, stride: int) -> int:
    """Return the pixels of the pooled map of all samples."""
    batch, _, height, width = query
    return batch * (height // stride) * (width // stride)


OP = register(
    Op(
        hadamard_attention,
        check=check,
        formula=formula,
        gradients=gradients,
        multiply_adds=multiply_adds,
        backward_multiply_adds=backward_multiply_adds,
        maps=("query", "key"),
    )
)
HadamardAttentionFunction: type[torch.autograd.Function]
HadamardAttentionFunction, HadamardAttentionBackwardFunction = OP.functions

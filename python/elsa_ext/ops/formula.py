"""Both ops in plain PyTorch: for devices without a kernel, for ONNX export, and as the yardstick of the kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import memory_format


def _effective_dilation(dilation: int, height: int, width: int) -> int:
    """Beyond the size of the map every dilation is the same: the padding need not grow with it."""
    # A comparison, not min(): what is compiled for one size stays good for others.
    return dilation if dilation <= height or dilation <= width else max(height, width)


def _empty(size: tuple[int, ...], *inputs: Tensor | None) -> Tensor:
    """Return an empty result that depends on every input, so that each gets its gradient of zeros."""
    first, *others = (tensor for tensor in inputs if tensor is not None)
    out = first.new_empty(size) + 0 * first.sum()
    for tensor in others:
        out = out + 0 * tensor.sum().to(first.dtype)
    return out.clone(memory_format=memory_format(first))


def ghost_head(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    *,
    kernel_size: int,
    dilation: int,
    stride: int,
) -> Tensor:
    """Unfold ``value`` into its K² neighbours and sum them under ``ghost_mul · attn + ghost_add``."""
    batch, channels, height, width = value.shape
    taps = kernel_size**2
    out_height, out_width = height // stride, width // stride
    heads = attn.shape[1] // taps
    split = (heads, channels // heads, taps)
    if value.numel() == 0 or out_height == 0 or out_width == 0:
        return _empty((batch, channels, out_height, out_width), value, attn, ghost_mul, ghost_add)
    dilation = _effective_dilation(dilation, height, width)
    # Unfold rounds the output size up where the op rounds it down: the last row and column may be one too many.
    patches = F.unfold(value, kernel_size, dilation, kernel_size // 2 * dilation, stride)
    patches = patches.view(batch, *split, (height - 1) // stride + 1, (width - 1) // stride + 1)
    patches = patches[..., :out_height, :out_width]
    weight = attn.reshape(batch, heads, 1, taps, out_height, out_width)
    if ghost_mul is not None:
        weight = weight * ghost_mul.reshape(-1, *split, 1, 1)
    if ghost_add is not None:
        weight = weight + ghost_add.reshape(-1, *split, 1, 1)
    out = (weight * patches).sum(3).reshape(batch, channels, out_height, out_width).to(value.dtype)
    return out.clone(memory_format=memory_format(value))


def hadamard_logits(
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
    dilation = _effective_dilation(dilation, *query.shape[2:])
    radius = conv_weight.shape[-1] // 2 * dilation
    groups = query.shape[1] // conv_weight.shape[1]
    hidden = F.gelu(conv2d(product, conv_weight, conv_bias, padding=radius, dilation=dilation, groups=groups))
    return conv2d(hidden, proj_weight.reshape(*proj_weight.shape[:2], 1, 1), proj_bias, groups=proj_groups)


def hadamard_attention(
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
    """Softmax of ``hadamard_logits`` over the K² taps of every head."""
    out_size = (query.shape[2] // stride, query.shape[3] // stride)
    if query.numel() == 0 or 0 in out_size:
        size = (query.shape[0], proj_weight.shape[0], *out_size)
        return _empty(size, query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    logits = hadamard_logits(
        query,
        key,
        conv_weight,
        conv_bias,
        proj_weight,
        proj_bias,
        scale=scale,
        dilation=dilation,
        stride=stride,
        proj_groups=proj_groups,
    )
    attn = logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
    return attn.clone(memory_format=memory_format(query))


def _unfolded_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Convolve by unfolding: unlike ``F.conv2d``, its second derivative can be traced with symbolic sizes."""
    batch, _, height, width = input.shape
    patches = F.unfold(input, weight.shape[-1], dilation, padding).view(batch, groups, -1, height * width)
    out = torch.matmul(weight.reshape(groups, -1, patches.shape[2]), patches).view(batch, -1, height, width)
    return out if bias is None else out + bias.view(-1, 1, 1)


def hadamard_attention_backward(
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
    """Gradients of the six tensors of ``hadamard_attention``, given its output; None for a bias that is None."""
    by_head, grad_by_head = attn.unflatten(1, (heads, -1)), grad.unflatten(1, (heads, -1))
    grad_logits = by_head * (grad_by_head - (by_head * grad_by_head).sum(2, keepdim=True))
    inputs = (query, key, conv_weight, conv_bias, proj_weight, proj_bias)

    def logits(*tensors: Any) -> tuple[Tensor]:
        options: dict[str, Any] = {
            "scale": scale,
            "dilation": dilation,
            "stride": stride,
            "proj_groups": proj_groups,
        }
        return (hadamard_logits(*tensors, **options, conv2d=_unfolded_conv2d),)

    return pullback(logits, inputs, (grad_logits.flatten(1, 2),))


def _vjp(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None]
) -> tuple[list[int], tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]:
    """Return which inputs are given, and what ``torch.func.vjp`` gives for ``function`` of those."""
    given = [index for index, tensor in enumerate(inputs) if tensor is not None]

    def of_given(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments: list[Tensor | None] = [None] * len(inputs)
        for index, tensor in zip(given, tensors, strict=True):
            arguments[index] = tensor
        return function(*arguments)

    outputs, back, *_ = torch.func.vjp(of_given, *(inputs[index] for index in given))
    return given, outputs, back


def pullback(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], directions: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradient of ``⟨directions, function(*inputs)⟩`` by every input; None by one that is None."""
    given, _, back = _vjp(function, inputs)
    parts = dict(zip(given, back(tuple(directions)), strict=True))
    return tuple(parts.get(index) for index in range(len(inputs)))


def pushforward(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return the derivatives of ``function(*inputs)`` along ``tangents``, of which None stands for zeros.

    It is the transpose of the pullback, which is linear: ``torch.func.jvp`` cannot run inside a level of
    ``torch.autograd.forward_ad``.
    """
    given, outputs, back = _vjp(function, inputs)
    transposed = torch.func.vjp(back, tuple(map(torch.zeros_like, outputs)))[1]
    along = []
    for index in given:
        tangent, tensor = tangents[index], inputs[index]
        along.append(torch.zeros_like(tensor) if tangent is None else tangent)  # type: ignore[arg-type]
    parts: tuple[Tensor, ...] = transposed(tuple(along))[0]
    return parts

"""Hadamard attention: the functional API, and what torch.library needs to know beside the native kernels."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _library  # noqa: F401  (defines torch.ops.elsa)
from ..backend import is_native
from . import autocast, autograd, formula, vmap
from .checks import HadamardParameters, check_gradient, check_hadamard_attention, check_tensors, empty_in_format, whole

_forward = torch.ops.elsa.hadamard_attention.default
_backward = torch.ops.elsa.hadamard_attention_backward.default


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
        (B, heads·K², H // stride, W // stride), head-major, then row-major K × K, in query's dtype and memory format:
        what :func:`elsa_ext.ghost_head` takes. Every head's map sums to 1. 16-bit inputs are computed in float32 and
        rounded once. The result does not depend on the number of threads.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or a number is not one.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.2.
    """
    check_tensors(
        "hadamard_attention",
        {"query": query, "key": key, "conv_weight": conv_weight, "proj_weight": proj_weight},
        {"conv_bias": conv_bias, "proj_bias": proj_bias},
    )
    given = {"dilation": dilation, "stride": stride, "proj_groups": proj_groups}
    options = {name: whole("hadamard_attention", name, value) for name, value in given.items()}
    heads = whole("hadamard_attention", "heads", heads)
    if isinstance(scale, numbers.Real):  # NumPy's are
        scale = float(scale)
    tensors: Sequence[Any] = (query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    if is_native("hadamard_attention", query) and not vmap.transforms_active():
        return torch.ops.elsa.hadamard_attention(*tensors, heads=heads, scale=scale, **options)
    if autocast.is_enabled(query.device.type):
        tensors = autocast.cast(tensors, query.device.type)
    if is_native("hadamard_attention", query):
        return HadamardAttentionFunction.apply(*tensors, heads, scale, *options.values())
    query, key, *parameters = tensors
    check_hadamard_attention("hadamard_attention", query, key, HadamardParameters(*parameters), heads, **options)
    return formula.hadamard_attention(*tensors, heads=heads, scale=scale, **options)


class HadamardAttentionFunction(torch.autograd.Function):
    """The native Hadamard attention as an autograd function, which is the derivative of the registered op as well.

    ``apply(query, key, conv_weight, conv_bias, proj_weight, proj_bias, heads, scale, dilation, stride, proj_groups)``;
    see :func:`elsa_ext.hadamard_attention`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:  # noqa: D102
        with autograd.below():
            return _forward(*inputs[:6], **_options(inputs[6:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        ctx.save_for_backward(output, *inputs[:6])
        ctx.save_for_forward(output, *inputs[:6])
        ctx.options = _options(inputs[6:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        needed = ctx.needs_input_grad[:6]
        if vmap.transforms_active():
            gradients = _BackwardFunction.apply(grad, *ctx.saved_tensors, *ctx.options.values(), *needed)
        else:
            gradients = _backward(grad, *ctx.saved_tensors, **ctx.options, **_needs(needed))
        return (*(part if need else None for part, need in zip(gradients, needed, strict=True)), *(None,) * 5)

    @staticmethod
    @autograd.forward_rule
    def jvp(ctx: Any, saved: Sequence[Any], *tangents: Tensor | None) -> Tensor:  # noqa: D102
        def attention(*tensors: Any) -> tuple[Tensor]:
            return (formula.hadamard_attention(*tensors, **ctx.options),)

        return formula.pushforward(attention, saved[1:], tangents[:6])[0]


class _BackwardFunction(torch.autograd.Function):
    """The backward op as an autograd function. Its derivatives are those of its formula in plain PyTorch."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        with autograd.below():
            return _backward(*inputs[:8], **_options(inputs[8:13]), **_needs(inputs[13:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:8])
        ctx.save_for_forward(*inputs[:8])
        ctx.options = _options(inputs[8:13])
        ctx.needed = inputs[13:]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        wanted = _wanted(ctx)
        parts = formula.pullback(_gradients(ctx), ctx.saved_tensors, [directions[index] for index in wanted])
        return (*parts, *(None,) * 11)

    @staticmethod
    @autograd.forward_rule
    def jvp(ctx: Any, saved: Sequence[Any], *tangents: Tensor | None) -> tuple[Tensor, ...]:
        parts = dict(zip(_wanted(ctx), formula.pushforward(_gradients(ctx), saved, tangents[:8]), strict=True))
        # PyTorch takes no None here. What nobody asked for is empty, and so is its tangent.
        return tuple(parts[index] if index in parts else saved[0].new_empty(0) for index in range(6))


def _wanted(ctx: Any) -> list[int]:
    """Return which of the six gradients the backward gives: those that are asked for, of what is there."""
    return [index for index in range(6) if ctx.needed[index] and ctx.saved_tensors[index + 2] is not None]


def _gradients(ctx: Any) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function of all inputs of the backward that gives the gradients that are wanted."""
    wanted = _wanted(ctx)

    def gradients(*inputs: Any) -> tuple[Tensor, ...]:
        parts: Sequence[Any] = formula.hadamard_attention_backward(*inputs, **ctx.options)
        return tuple(parts[index] for index in wanted)

    return gradients


def _options(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("heads", "scale", "dilation", "stride", "proj_groups"), values, strict=True))


def _needs(needed: Sequence[bool]) -> dict[str, bool]:
    names = ("query", "key", "conv_weight", "conv_bias", "proj_weight", "proj_bias")
    return {f"need_{name}": need for name, need in zip(names, needed, strict=True)}


@torch.library.register_fake("elsa::hadamard_attention")
def _fake(
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
    parameters = HadamardParameters(conv_weight, conv_bias, proj_weight, proj_bias)
    size = check_hadamard_attention("hadamard_attention", query, key, parameters, heads, dilation, stride, proj_groups)
    return empty_in_format(query, size)


@torch.library.register_fake("elsa::hadamard_attention_backward")
def _fake_backward(
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
    scale: float = 1.0,
    dilation: int = 1,
    stride: int = 1,
    proj_groups: int = 1,
    need_query: bool = True,
    need_key: bool = True,
    need_conv_weight: bool = True,
    need_conv_bias: bool = True,
    need_proj_weight: bool = True,
    need_proj_bias: bool = True,
) -> tuple[Tensor, ...]:
    op = "hadamard_attention_backward"
    parameters = HadamardParameters(conv_weight, conv_bias, proj_weight, proj_bias)
    size = check_hadamard_attention(op, query, key, parameters, heads, dilation, stride, proj_groups)
    check_gradient(op, "attn", attn, "query", query, size)
    check_gradient(op, "grad", grad, "query", query, size)
    needed = (need_conv_weight, need_conv_bias, need_proj_weight, need_proj_bias)
    return (
        empty_in_format(query, query.shape) if need_query else query.new_empty(0),
        empty_in_format(key, key.shape) if need_key else key.new_empty(0),
        *(
            tensor.new_empty(tensor.shape) if need and tensor is not None else query.new_empty(0)
            for need, tensor in zip(needed, parameters, strict=True)
        ),
    )


def _vmap(info: Any, in_dims: vmap.Dims, *args: Any, **options: Any) -> tuple[Tensor, int]:
    if any(dim is not None for dim in in_dims[2:]):  # the weights are mapped too
        return vmap.loop(_forward, info.batch_size, in_dims, args, options)
    query, key = (vmap.fold(tensor, dim, info.batch_size) for tensor, dim in zip(args[:2], in_dims[:2], strict=True))
    return _forward(query, key, *args[2:], **options).unflatten(0, (info.batch_size, -1)), 0


def _vmap_backward(info: Any, in_dims: vmap.Dims, *args: Any, **options: Any) -> tuple[Any, Any]:
    return vmap.loop(_backward, info.batch_size, in_dims, args, options)


autograd.register(_forward, HadamardAttentionFunction)
autograd.register(_backward, _BackwardFunction)
torch.library.register_vmap("elsa::hadamard_attention", _vmap)
torch.library.register_vmap("elsa::hadamard_attention_backward", _vmap_backward)
autocast.register(_forward, casts=6)
# TorchScript compiles no function with keyword-only defaults: it takes the op itself.
torch.jit._builtins._register_builtin(hadamard_attention, "elsa::hadamard_attention")

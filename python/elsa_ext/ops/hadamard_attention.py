"""Hadamard attention: the functional API, and what torch.library needs to know beside the native kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _library  # noqa: F401  (defines torch.ops.elsa)
from ..backend import is_native
from . import autocast, formula, vmap
from .checks import HadamardParameters, check_gradient, check_hadamard_attention, check_tensors, empty_in_format

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
        TypeError: An argument is not a tensor.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.2.
    """
    check_tensors(
        "hadamard_attention",
        {"query": query, "key": key, "conv_weight": conv_weight, "proj_weight": proj_weight},
        {"conv_bias": conv_bias, "proj_bias": proj_bias},
    )
    options: dict[str, Any] = {"dilation": dilation, "stride": stride, "proj_groups": proj_groups}
    tensors: Sequence[Any] = (query, key, conv_weight, conv_bias, proj_weight, proj_bias)
    if is_native("hadamard_attention", query) and not vmap.transforms_active():
        return torch.ops.elsa.hadamard_attention(*tensors, heads=heads, scale=scale, **options)
    if autocast.is_enabled(query.device.type):
        tensors = autocast.cast(tensors, query.device.type)
    if is_native("hadamard_attention", query):
        return HadamardAttentionFunction.apply(*tensors, heads, scale, dilation, stride, proj_groups)
    query, key, *parameters = tensors
    check_hadamard_attention("hadamard_attention", query, key, HadamardParameters(*parameters), heads, **options)
    return formula.hadamard_attention(*tensors, heads=heads, scale=scale, **options)


class HadamardAttentionFunction(torch.autograd.Function):
    """The native Hadamard attention as an autograd function.

    ``apply(query, key, conv_weight, conv_bias, proj_weight, proj_bias, heads, scale, dilation, stride, proj_groups)``;
    see :func:`elsa_ext.hadamard_attention`. Its context and derivative are those of the registered op.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: D102
        query: Tensor,
        key: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor | None,
        proj_weight: Tensor,
        proj_bias: Tensor | None,
        heads: int,
        scale: float,
        dilation: int,
        stride: int,
        proj_groups: int,
    ) -> Tensor:
        return _forward(
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

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        _setup_context(ctx, inputs[:6], _options(inputs[6:]), output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return (*_gradients(ctx, grad), None, None, None, None, None)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)
    ctx.options = keyword_only_inputs


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if vmap.transforms_active():
        gradients = _BackwardFunction.apply(grad, *ctx.saved_tensors, *ctx.options.values())
    else:
        gradients = _backward(grad, *ctx.saved_tensors, **ctx.options)
    return tuple(part if need else None for part, need in zip(gradients, ctx.needs_input_grad[:6], strict=True))


class _BackwardFunction(torch.autograd.Function):
    """The backward op as an autograd function, for torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return _backward(*inputs[:8], **_options(inputs[8:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _setup_backward_context(ctx, inputs[:8], _options(inputs[8:]), output)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        return (*_second_gradients(ctx, *directions), *(None,) * 5)


def _options(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("heads", "scale", "dilation", "stride", "proj_groups"), values, strict=True))


def _setup_backward_context(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: tuple[Tensor, ...]
) -> None:
    ctx.save_for_backward(*inputs)
    ctx.options = keyword_only_inputs


def _second_gradients(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate the backward through its formula in plain PyTorch, which is differentiable to any order."""
    inputs = ctx.saved_tensors
    given = [index for index, tensor in enumerate(inputs) if tensor is not None]
    wanted = [index - 2 for index in given if index >= 2]  # the gradients that exist, in the order of directions

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments: list[Any] = [None] * len(inputs)
        for index, tensor in zip(given, tensors, strict=True):
            arguments[index] = tensor
        parts = formula.hadamard_attention_backward(*arguments, **ctx.options)
        return tuple(part for part in parts if part is not None)

    pullback = torch.func.vjp(gradients, *(inputs[index] for index in given))[1]
    parts = dict(zip(given, pullback(tuple(directions[index] for index in wanted)), strict=True))
    return tuple(parts.get(index) for index in range(len(inputs)))


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
) -> tuple[Tensor, ...]:
    op = "hadamard_attention_backward"
    parameters = HadamardParameters(conv_weight, conv_bias, proj_weight, proj_bias)
    size = check_hadamard_attention(op, query, key, parameters, heads, dilation, stride, proj_groups)
    check_gradient(op, "attn", attn, "query", query, size)
    check_gradient(op, "grad", grad, "query", query, size)
    return (
        empty_in_format(query, query.shape),
        empty_in_format(key, key.shape),
        *(query.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in parameters),
    )


def _vmap(info: Any, in_dims: vmap.Dims, *args: Any, **options: Any) -> tuple[Tensor, int]:
    if any(dim is not None for dim in in_dims[2:]):  # the weights are mapped too
        return vmap.loop(_forward, info.batch_size, in_dims, args, options)
    query, key = (vmap.fold(tensor, dim, info.batch_size) for tensor, dim in zip(args[:2], in_dims[:2], strict=True))
    return _forward(query, key, *args[2:], **options).unflatten(0, (info.batch_size, -1)), 0


def _vmap_backward(info: Any, in_dims: vmap.Dims, *args: Any, **options: Any) -> tuple[Any, Any]:
    return vmap.loop(_backward, info.batch_size, in_dims, args, options)


torch.library.register_autograd("elsa::hadamard_attention", _gradients, setup_context=_setup_context)
torch.library.register_autograd(
    "elsa::hadamard_attention_backward", _second_gradients, setup_context=_setup_backward_context
)
torch.library.register_vmap("elsa::hadamard_attention", _vmap)
torch.library.register_vmap("elsa::hadamard_attention_backward", _vmap_backward)
autocast.register(_forward, casts=6)
# TorchScript compiles no function with keyword-only defaults: it takes the op itself.
torch.jit._builtins._register_builtin(hadamard_attention, "elsa::hadamard_attention")

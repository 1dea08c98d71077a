"""Ghost head: the functional API, and what torch.library needs to know beside the native kernels."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _library  # noqa: F401  (defines torch.ops.elsa)
from ..backend import is_native
from . import autocast, autograd, formula, vmap
from .checks import check_ghost_head, check_gradient, check_tensors, empty_in_format, whole

_forward = torch.ops.elsa.ghost_head.default
_backward = torch.ops.elsa.ghost_head_backward.default


def ghost_head(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None = None,
    ghost_add: Tensor | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
) -> Tensor:
    """Sum the K × K neighbours of every pixel under a filter per channel, made of one attention map per head.

    ``out[b,c,y,x] = Σ_ij (ghost_mul[c,i,j] · attn[b,h(c),i,j,y,x] + ghost_add[c,i,j]) · value[b,c,y',x']`` with
    ``y' = s·y + (i-r)·d`` and ``x' = s·x + (j-r)·d``,
    radius r = K // 2, dilation d, stride s and head h(c) = c // (C / heads); zero outside the map.

    Args:
        value: (B, C, H, W) in float64, float32, bfloat16 or float16. Contiguous, channels_last, or a channel slice of a
            wider channels_last tensor; nothing is copied.
        attn: (B, heads·K², H // stride, W // stride), head-major, then row-major K × K; value's dtype.
        ghost_mul: (C, K, K), or (B, C, K, K) for one per sample; value's dtype, or float32 beside a 16-bit value.
            None means 1.
        ghost_add: Like ``ghost_mul``. None means 0.
        kernel_size: K, odd.
        dilation: Distance of neighbours, in pixels.
        stride: Distance of output pixels, in pixels of value.

    Returns:
        (B, C, H // stride, W // stride) in value's dtype and memory format. 16-bit inputs are accumulated in float32
        and rounded once. The result does not depend on the number of threads.

    Raises:
        RuntimeError: An argument has the wrong shape, dtype, device, layout or value; the message names it.
        TypeError: An argument is not a tensor, or an option is not an integer.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.3.
    """
    check_tensors("ghost_head", {"value": value, "attn": attn}, {"ghost_mul": ghost_mul, "ghost_add": ghost_add})
    given = {"kernel_size": kernel_size, "dilation": dilation, "stride": stride}
    options = {name: whole("ghost_head", name, value) for name, value in given.items()}
    if is_native("ghost_head", value) and not vmap.transforms_active():
        return torch.ops.elsa.ghost_head(value, attn, ghost_mul, ghost_add, **options)
    if autocast.is_enabled(value.device.type):
        value, attn = autocast.cast((value, attn), value.device.type)
    if is_native("ghost_head", value):
        return GhostHeadFunction.apply(value, attn, ghost_mul, ghost_add, *options.values())
    check_ghost_head("ghost_head", value, attn, ghost_mul, ghost_add, **options)
    return formula.ghost_head(value, attn, ghost_mul, ghost_add, **options)


class GhostHeadFunction(torch.autograd.Function):
    """The native ghost head as an autograd function, which is also the derivative of ``torch.ops.elsa.ghost_head``.

    ``apply(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride)``; see :func:`elsa_ext.ghost_head`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:  # noqa: D102
        with autograd.below():
            return _forward(*inputs[:4], **_options(inputs[4:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.options = _options(inputs[4:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        needed = ctx.needs_input_grad[:4]
        gradients = _call_backward(grad, *ctx.saved_tensors, options=ctx.options, needed=needed)
        return (*_only(needed, gradients), None, None, None)

    @staticmethod
    @autograd.forward_rule
    def jvp(ctx: Any, saved: Sequence[Any], *tangents: Tensor | None) -> Tensor | None:  # noqa: D102
        terms = _derivative_terms(*saved, *tangents[:4])
        return _sum(_call_forward(*arguments, options=ctx.options) for arguments, _ in terms)


class _BackwardFunction(torch.autograd.Function):
    """The backward op as an autograd function."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        with autograd.below():
            return _backward(*inputs[:5], **_options(inputs[5:8]), **_needs(inputs[8:]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.save_for_forward(*inputs[:5])
        ctx.options = _options(inputs[5:8])
        ctx.needed = inputs[8:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:5]
        given = (direction if need else None for direction, need in zip(directions, ctx.needed, strict=True))
        terms = _derivative_terms(*tensors, *given)
        to_grad = None
        if wanted[0]:
            to_grad = _sum(_call_forward(*arguments, options=ctx.options) for arguments, _ in terms)
        return (to_grad, *_backward_terms(grad, terms, ctx.options, wanted[1:]), *(None,) * 7)

    @staticmethod
    @autograd.forward_rule
    def jvp(ctx: Any, saved: Sequence[Any], to_grad: Tensor | None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        grad, *tensors = saved
        parts = _backward_terms(grad, _derivative_terms(*tensors, *tangents[:4]), ctx.options, ctx.needed)
        if to_grad is not None:
            straight = _call_backward(to_grad, *tensors, options=ctx.options, needed=ctx.needed)
            parts = [_sum(pair) for pair in zip(parts, _only(ctx.needed, straight), strict=True)]
        # PyTorch takes no None here. What nobody asked for is empty, and so is its tangent.
        exist = (need and tensor is not None for need, tensor in zip(ctx.needed, tensors, strict=True))
        shapes = (tensor.shape if exists else (0,) for exists, tensor in zip(exist, tensors, strict=True))
        return tuple(grad.new_zeros(shape) if part is None else part for part, shape in zip(parts, shapes, strict=True))


# The arguments of a ghost head, and which of them are inputs, not directions.
_Term = tuple[tuple[Tensor | None, ...], tuple[bool, ...]]


def _derivative_terms(
    value: Tensor,
    attn: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    to_value: Tensor | None,
    to_attn: Tensor | None,
    to_mul: Tensor | None,
    to_add: Tensor | None,
) -> list[_Term]:
    """Write the derivative of the ghost head along directions as a sum of ghost heads.

    It is linear in value and in the weight mul · attn + add: each term has one of them replaced by its direction.
    ``⟨grad, …⟩`` of the sum is the derivative of the backward as well, since second derivatives commute.
    """
    has_mul, has_add = mul is not None, add is not None
    terms: list[_Term] = []
    if to_value is not None:
        terms.append(((to_value, attn, mul, add), (False, True, has_mul, has_add)))
    if to_attn is not None:
        terms.append(((value, to_attn, mul, None), (True, False, has_mul, False)))
    if to_mul is not None and has_mul:
        terms.append(((value, attn, to_mul, to_add if has_add else None), (True, True, False, False)))
    elif to_add is not None and has_add:
        terms.append(((value, torch.zeros_like(attn), None, to_add), (True, False, False, False)))
    return terms


def _backward_terms(
    grad: Tensor, terms: Sequence[_Term], options: dict[str, int], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Add up what the terms give to the gradients that are wanted of value, attn, mul and add."""
    gradients = []
    for arguments, inputs in terms:
        needed = [is_input and want for is_input, want in zip(inputs, wanted, strict=True)]
        if any(needed):
            gradients.append(_only(needed, _call_backward(grad, *arguments, options=options, needed=needed)))
    return [_sum(parts) for parts in zip(*gradients, strict=True)] if gradients else [None] * 4


def _sum(parts: Iterable[Tensor | None]) -> Tensor | None:
    """Add up what there is, if anything."""
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None


def _call_forward(*tensors: Tensor | None, options: dict[str, int]) -> Tensor:
    if vmap.transforms_active():
        return GhostHeadFunction.apply(*tensors, *options.values())
    return _forward(*tensors, **options)


def _call_backward(*tensors: Tensor | None, options: dict[str, int], needed: Sequence[bool]) -> tuple[Tensor, ...]:
    if vmap.transforms_active():
        return _BackwardFunction.apply(*tensors, *options.values(), *needed)
    return _backward(*tensors, **options, **_needs(needed))


def _options(values: Sequence[int]) -> dict[str, int]:
    return dict(zip(("kernel_size", "dilation", "stride"), values, strict=True))


def _needs(needed: Sequence[bool]) -> dict[str, bool]:
    return dict(zip(("need_value", "need_attn", "need_mul", "need_add"), needed, strict=True))


def _only(needed: Sequence[bool], gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return tuple(grad if need else None for need, grad in zip(needed, gradients, strict=True))


@torch.library.register_fake("elsa::ghost_head")
def _fake(
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None = None,
    ghost_add: Tensor | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
) -> Tensor:
    size = check_ghost_head("ghost_head", value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride)
    return empty_in_format(value, size)


@torch.library.register_fake("elsa::ghost_head_backward")
def _fake_backward(
    grad: Tensor,
    value: Tensor,
    attn: Tensor,
    ghost_mul: Tensor | None = None,
    ghost_add: Tensor | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
    need_value: bool = True,
    need_attn: bool = True,
    need_mul: bool = True,
    need_add: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    op = "ghost_head_backward"
    size = check_ghost_head(op, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride)
    check_gradient(op, "grad", grad, "value", value, size)
    return (
        empty_in_format(value, value.shape) if need_value else value.new_empty(0),
        empty_in_format(attn, attn.shape) if need_attn else attn.new_empty(0),
        ghost_mul.new_empty(ghost_mul.shape) if need_mul and ghost_mul is not None else value.new_empty(0),
        ghost_add.new_empty(ghost_add.shape) if need_add and ghost_add is not None else value.new_empty(0),
    )


def _fold_matrix(matrix: Tensor | None, dim: int | None, size: int, batch: int) -> Tensor | None:
    """Fold a mapped matrix to one per sample of the folded batch; one that all of them share stays as it is."""
    if matrix is None or (dim is None and matrix.dim() == 3):
        return matrix
    mapped = matrix.movedim(dim, 0) if dim is not None else matrix.expand(size, *matrix.shape)
    return (mapped if mapped.dim() == 5 else mapped.unsqueeze(1).expand(-1, batch, -1, -1, -1)).flatten(0, 1)


def _vmap(info: Any, in_dims: vmap.Dims, *args: Any, **options: int) -> tuple[Tensor, int]:
    size = info.batch_size
    value, attn = (vmap.fold(tensor, dim, size) for tensor, dim in zip(args[:2], in_dims[:2], strict=True))
    batch = value.shape[0] // size
    matrices = (_fold_matrix(matrix, dim, size, batch) for matrix, dim in zip(args[2:], in_dims[2:], strict=True))
    return _forward(value, attn, *matrices, **options).unflatten(0, (size, batch)), 0


def _vmap_backward(info: Any, in_dims: vmap.Dims, *args: Any, **options: Any) -> tuple[Any, Any]:
    return vmap.loop(_backward, info.batch_size, in_dims, args, options)


autograd.register(_forward, GhostHeadFunction)
autograd.register(_backward, _BackwardFunction)
torch.library.register_vmap("elsa::ghost_head", _vmap)
torch.library.register_vmap("elsa::ghost_head_backward", _vmap_backward)
autocast.register(_forward, casts=2)
# TorchScript compiles no function with keyword-only defaults: it takes the op itself.
torch.jit._builtins._register_builtin(ghost_head, "elsa::ghost_head")

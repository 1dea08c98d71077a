"""Ghost head: the functional API, and what torch.library needs to know beside the native kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _library  # noqa: F401  (defines torch.ops.elsa)
from ..backend import is_native
from . import autocast, formula, vmap
from .checks import check_ghost_head, check_gradient, check_tensors, empty_in_format

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
        TypeError: An argument is not a tensor.

    Source:
        Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.3.
    """
    check_tensors("ghost_head", {"value": value, "attn": attn}, {"ghost_mul": ghost_mul, "ghost_add": ghost_add})
    options = {"kernel_size": kernel_size, "dilation": dilation, "stride": stride}
    if is_native("ghost_head", value) and not vmap.transforms_active():
        return torch.ops.elsa.ghost_head(value, attn, ghost_mul, ghost_add, **options)
    if autocast.is_enabled(value.device.type):
        value, attn = autocast.cast((value, attn), value.device.type)
    if is_native("ghost_head", value):
        return GhostHeadFunction.apply(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride)
    check_ghost_head("ghost_head", value, attn, ghost_mul, ghost_add, **options)
    return formula.ghost_head(value, attn, ghost_mul, ghost_add, **options)


class GhostHeadFunction(torch.autograd.Function):
    """The native ghost head as an autograd function.

    ``apply(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride)``; see :func:`elsa_ext.ghost_head`. Its
    context and derivative are those of ``torch.ops.elsa.ghost_head``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: D102
        value: Tensor,
        attn: Tensor,
        ghost_mul: Tensor | None,
        ghost_add: Tensor | None,
        kernel_size: int,
        dilation: int,
        stride: int,
    ) -> Tensor:
        return _forward(value, attn, ghost_mul, ghost_add, kernel_size=kernel_size, dilation=dilation, stride=stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        options = dict(zip(("kernel_size", "dilation", "stride"), inputs[4:], strict=True))
        _setup_context(ctx, inputs[:4], options, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return (*_gradients(ctx, grad), None, None, None)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)
    ctx.options = keyword_only_inputs


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needed = _needed(ctx, 4)
    return _only(needed, _call_backward(grad, *ctx.saved_tensors, options=ctx.options, needed=needed))


def _call_forward(*tensors: Tensor | None, options: dict[str, int]) -> Tensor:
    if vmap.transforms_active():
        return GhostHeadFunction.apply(*tensors, *options.values())
    return _forward(*tensors, **options)


def _call_backward(*tensors: Tensor | None, options: dict[str, int], needed: Sequence[bool]) -> tuple[Tensor, ...]:
    if vmap.transforms_active():
        return _BackwardFunction.apply(*tensors, *options.values(), *needed)
    return _backward(*tensors, **options, **_needs(needed))


class _BackwardFunction(torch.autograd.Function):
    """The backward op as an autograd function, for torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor,
        value: Tensor,
        attn: Tensor,
        ghost_mul: Tensor | None,
        ghost_add: Tensor | None,
        *options: Any,
    ) -> tuple[Tensor, ...]:
        return _backward(grad, value, attn, ghost_mul, ghost_add, **_backward_options(options))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _setup_backward_context(ctx, inputs[:5], _backward_options(inputs[5:]), output)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*_second_gradients(ctx, *directions), *(None,) * 7)


def _backward_options(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("kernel_size", "dilation", "stride"), values[:3], strict=True)) | _needs(values[3:])


def _needed(ctx: Any, count: int) -> tuple[bool, ...]:
    """Which of the first ``count`` inputs need a gradient; the dispatcher drops arguments left at their default."""
    return (*ctx.needs_input_grad, *(False,) * count)[:count]


def _needs(needed: Sequence[bool]) -> dict[str, bool]:
    return dict(zip(("need_value", "need_attn", "need_mul", "need_add"), needed, strict=True))


def _only(needed: Sequence[bool], gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return tuple(grad if need else None for need, grad in zip(needed, gradients, strict=True))


def _setup_backward_context(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: tuple[Tensor, ...]
) -> None:
    ctx.save_for_backward(*inputs)
    ctx.options = {name: keyword_only_inputs[name] for name in ("kernel_size", "dilation", "stride")}
    ctx.needed = [keyword_only_inputs[name] for name in ("need_value", "need_attn", "need_mul", "need_add")]
    ctx.set_materialize_grads(False)


def _second_gradients(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
    """Differentiate the backward.

    ``⟨grad, ghost_head(value, attn, mul, add)⟩`` is linear in grad, in value, and in the weight mul · attn + add. The
    backward gives its partial derivatives; the derivative along ``directions`` is a sum of the same form, with one
    factor of each term replaced by its direction.
    """
    grad, value, attn, mul, add = ctx.saved_tensors
    wanted = _needed(ctx, 5)
    to_value, to_attn, to_mul, to_add = (
        direction if needed else None for direction, needed in zip(directions, ctx.needed, strict=True)
    )
    has_mul, has_add = mul is not None, add is not None
    # The arguments of each term, and which of them are inputs, not directions.
    terms = []
    if to_value is not None:
        terms.append(((to_value, attn, mul, add), (False, True, has_mul, has_add)))
    if to_attn is not None:
        terms.append(((value, to_attn, mul, None), (True, False, has_mul, False)))
    if to_mul is not None and has_mul:
        terms.append(((value, attn, to_mul, to_add if has_add else None), (True, True, False, False)))
    elif to_add is not None and has_add:
        terms.append(((value, torch.zeros_like(attn), None, to_add), (True, False, False, False)))

    totals: list[Tensor | None] = [None] * 5

    def add_to(index: int, part: Tensor) -> None:
        total = totals[index]
        totals[index] = part if total is None else total + part

    for arguments, inputs in terms:
        if wanted[0]:
            add_to(0, _call_forward(*arguments, options=ctx.options))
        needed = [is_input and need for is_input, need in zip(inputs, wanted[1:], strict=True)]
        if any(needed):
            parts = _call_backward(grad, *arguments, options=ctx.options, needed=needed)
            for index, part in enumerate(_only(needed, parts)):
                if part is not None:
                    add_to(index + 1, part)
    return tuple(totals)


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


torch.library.register_autograd("elsa::ghost_head", _gradients, setup_context=_setup_context)
torch.library.register_autograd("elsa::ghost_head_backward", _second_gradients, setup_context=_setup_backward_context)
torch.library.register_vmap("elsa::ghost_head", _vmap)
torch.library.register_vmap("elsa::ghost_head_backward", _vmap_backward)
autocast.register(_forward, casts=2)
# TorchScript compiles no function with keyword-only defaults: it takes the op itself.
torch.jit._builtins._register_builtin(ghost_head, "elsa::ghost_head")

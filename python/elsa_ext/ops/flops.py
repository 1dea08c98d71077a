"""How many multiply-adds the ops take, for counters; importing this lets PyTorch's ``FlopCounterMode`` count them.

An addition or a multiplication alone counts as one. Borders count as if the map went on. The functions take shapes in
the place of tensors, and otherwise what the op of the same name takes.

ghost_head, per tap, channel and output pixel:

- forward: making the weight ``mul · attn + add`` is 1 with either matrix or both, nothing with none; using it is 1;
- backward of value: as the forward;
- backward of attn, mul and add: 1 each for its sum. With mul, which attn's gradient is multiplied by and whose own is
  multiplied by attn, the product ``grad · value`` is 1 more, shared by the three; without, the sums are made of it.

hadamard_attention: its two convolutions; in the backward each of them once for the gradient of its input, and once for
that of its weight.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

Shape = Sequence[int]


def ghost_head(
    value: Shape,
    attn: Shape,
    ghost_mul: Shape | None = None,
    ghost_add: Shape | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
) -> int:
    """Return the multiply-adds of ``elsa::ghost_head``."""
    return _per_weight(ghost_mul, ghost_add) * _taps(value, attn, kernel_size)


def ghost_head_backward(
    grad: Shape,
    value: Shape,
    attn: Shape,
    ghost_mul: Shape | None = None,
    ghost_add: Shape | None = None,
    *,
    kernel_size: int,
    dilation: int = 1,
    stride: int = 1,
    need_value: bool = True,
    need_attn: bool = True,
    need_mul: bool = True,
    need_add: bool = True,
) -> int:
    """Return the multiply-adds of ``elsa::ghost_head_backward`` for the gradients that are asked for."""
    to_mul = need_mul and ghost_mul is not None
    to_add = need_add and ghost_add is not None
    product = ghost_mul is not None and (need_attn or to_mul)
    per_tap = need_attn + to_mul + to_add + product
    if need_value:
        per_tap += _per_weight(ghost_mul, ghost_add)
    return per_tap * _taps(value, attn, kernel_size)


def _per_weight(ghost_mul: Shape | None, ghost_add: Shape | None) -> int:
    return 1 if ghost_mul is None and ghost_add is None else 2


def _taps(value: Shape, attn: Shape, kernel_size: int) -> int:
    """Return taps × channels × output pixels."""
    batch, _, height, width = attn
    return batch * height * width * kernel_size**2 * value[1]


def hadamard_attention(
    query: Shape,
    key: Shape,
    conv_weight: Shape,
    conv_bias: Shape | None,
    proj_weight: Shape,
    *others: Any,
    **options: Any,
) -> int:
    """Return the multiply-adds of ``elsa::hadamard_attention``."""
    return _pixels(query, options) * (math.prod(conv_weight) + math.prod(proj_weight))


def hadamard_attention_backward(
    grad: Shape,
    attn: Shape,
    query: Shape,
    key: Shape,
    conv_weight: Shape,
    conv_bias: Shape | None,
    proj_weight: Shape,
    *others: Any,
    need_query: bool = True,
    need_key: bool = True,
    need_conv_weight: bool = True,
    need_conv_bias: bool = True,
    need_proj_weight: bool = True,
    need_proj_bias: bool = True,
    **options: Any,
) -> int:
    """Return the multiply-adds of ``elsa::hadamard_attention_backward`` for the gradients that are asked for."""
    need_product = need_query or need_key
    need_hidden = need_product or need_conv_weight or (need_conv_bias and conv_bias is not None)
    conv = (need_product + need_conv_weight) * math.prod(conv_weight)
    proj = (need_hidden + need_proj_weight) * math.prod(proj_weight)
    return _pixels(query, options) * (conv + proj)


def _pixels(query: Shape, options: dict[str, Any]) -> int:
    """Return the pixels of the pooled map of all samples."""
    stride = options.get("stride", 1)
    return query[0] * (query[2] // stride) * (query[3] // stride)


def layer(elsa: Any, x: Shape) -> int:
    """Return the multiply-adds of a forward of ``elsa``, an `elsa_ext.nn.ELSA`, over maps of shape (B, H, W, dim).

    It is for counters that ask every module for its own: what they add up of its submodules leaves out the ghost head.
    """
    batch, height, width, _ = x
    query = (batch, elsa.dim_qk, height, width)
    attn = (batch, elsa.num_heads * elsa.kernel_size**2, height // elsa.stride, width // elsa.stride)
    matrix = (elsa.dim_v, elsa.kernel_size, elsa.kernel_size)
    mul, add = matrix if elsa.lam else None, matrix if elsa.gamma else None
    conv, proj = elsa.attn[0].weight.shape, elsa.attn[2].weight.shape
    return (
        batch * height * width * elsa.pre_proj.weight.numel()
        + hadamard_attention(query, query, conv, None, proj, stride=elsa.stride)
        + ghost_head((batch, elsa.dim_v, height, width), attn, mul, add, kernel_size=elsa.kernel_size)
        + batch * math.prod(attn[2:]) * elsa.post_proj.weight.numel()
    )


def fvcore_handles() -> dict[str, Callable[[Any, Any], int]]:
    """Return what fvcore's ``FlopCountAnalysis.set_op_handle`` takes, by names of ops: their multiply-adds.

    Example:
        >>> FlopCountAnalysis(model, images).set_op_handle(**fvcore_handles()).total()
    """
    return {f"elsa::{formula.__name__}": _of_values(formula) for formula in (ghost_head, hadamard_attention)}


def _of_values(formula: Callable[..., int]) -> Callable[[Any, Any], int]:
    """Let ``formula`` take the inputs of a node of a TorchScript graph."""
    names = [argument.name for argument in getattr(torch.ops.elsa, formula.__name__).default._schema.arguments]

    def count(inputs: Sequence[torch._C.Value], outputs: Sequence[torch._C.Value]) -> int:
        tensors = [isinstance(value.type(), torch._C.TensorType) for value in inputs]
        given = [
            value.type().sizes() if tensor else value.toIValue()  # type: ignore[attr-defined]
            for tensor, value in zip(tensors, inputs, strict=True)
        ]
        return formula(**dict(zip(names, given, strict=True)))

    return count


def register() -> None:
    """Let ``torch.utils.flop_counter.FlopCounterMode`` count our ops, two floating-point operations a multiply-add.

    That is how PyTorch counts its own. Importing ``elsa_ext`` does it.
    """
    for formula in (ghost_head, ghost_head_backward, hadamard_attention, hadamard_attention_backward):
        op = getattr(torch.ops.elsa, formula.__name__)
        if op not in flop_registry:
            register_flop_formula(op)(_twice(formula))


def _twice(formula: Any) -> Any:
    return lambda *shapes, out_shape=None, **options: 2 * formula(*shapes, **options)


register()

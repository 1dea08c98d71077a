"""How many multiply-adds the ops take, for counters; importing this lets PyTorch's ``FlopCounterMode`` count them.

An addition or a multiplication alone counts as one. Borders count as if the map went on. There is a function for every
op and one for its backward, as ``ghost_head`` and ``ghost_head_backward``: it takes shapes in the place of tensors, and
otherwise what the op of that name takes. What is counted stands in the file of the op.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from .. import _torch_private as private
from .._after_import import after_import
from .._ops import add_op_namespace_prefix
from .op import Registered
from .registration import OPS

Shape = Sequence[int]


def __getattr__(name: str) -> Callable[..., int]:
    if name.removesuffix("_backward") not in OPS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _count(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *OPS, *(f"{name}_backward" for name in OPS)])


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
        + _count("hadamard_attention")(query, query, conv, None, proj, stride=elsa.stride)
        + _count("ghost_head")((batch, elsa.dim_v, height, width), attn, mul, add, kernel_size=elsa.kernel_size)
        + batch * math.prod(attn[2:]) * elsa.post_proj.weight.numel()
    )


def fvcore_handles() -> dict[str, Callable[[Any, Any], int]]:
    """Return what fvcore's ``FlopCountAnalysis.set_op_handle`` takes, by names of ops: their multiply-adds.

    Example:
        >>> FlopCountAnalysis(model, images).set_op_handle(**fvcore_handles()).total()
    """
    return {add_op_namespace_prefix(name): _of_values(op.forward) for name, op in OPS.items()}


def _of_values(op: Registered) -> Callable[[Any, Any], int]:
    """Let the count of ``op`` take the inputs of a node of a TorchScript graph."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
        given = map(private.shape_or_constant, inputs)
        return _count(op.name)(**dict(zip((*op.tensors, *op.options), given, strict=True)))

    return count


def register() -> None:
    """Let ``torch.utils.flop_counter.FlopCounterMode`` count our ops, two floating-point operations a multiply-add.

    That is how PyTorch counts its own. Importing ``elsa_ext`` does it, as soon as that module is imported.
    """
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    for op in OPS.values():
        for direction in (op.forward, op.backward):
            if direction.packet not in flop_registry:
                register_flop_formula(direction.packet)(_twice(_count(direction.name)))


def _twice(formula: Any) -> Any:
    return lambda *shapes, out_shape=None, **options: 2 * formula(*shapes, **options)


@cache
def _count(name: str) -> Callable[..., int]:
    """Return the function that counts the op or backward op ``name``; what a count does not need may be left out."""
    op = OPS[name.removesuffix("_backward")]
    registered, formula = (
        (op.forward, op.multiply_adds) if name == op.name else (op.backward, op.backward_multiply_adds)
    )
    signature = registered.signature
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}

    def count(*shapes: Any, **named: Any) -> int:
        given = {**defaults, **signature.bind_partial(*shapes, **named).arguments}
        return formula(**{name: op.convert(name, v) if name in op.options else v for name, v in given.items()})

    count.__name__ = count.__qualname__ = name
    count.__doc__ = f"Return the multiply-adds of ``elsa::{name}``.\n\n{formula.__doc__}"
    count.__signature__ = signature  # type: ignore[attr-defined]
    return count


after_import("torch.utils.flop_counter", register)

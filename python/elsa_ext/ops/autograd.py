"""Derivatives of the registered ops, in both modes: ``torch.library.register_autograd`` knows reverse mode alone."""

from collections.abc import Callable, Sequence
from functools import wraps
from types import new_class
from typing import Any

import torch
from torch import Tensor

from .. import _torch_private as private
from .derivatives import OfFormula, OfTerms
from .op import Op, Registered, as_leaves, only

Function = type[torch.autograd.Function]


def kernel(op: Registered, function: Function) -> Callable[..., Any]:
    """Return the kernel that applies ``function`` to all arguments of ``op`` where a tensor needs a derivative."""
    call, leading, apply = op.call, op.leading, function.apply

    def record(keyset: Any, *args: Any, **options: Any) -> Any:
        if private.needs_derivative(args):
            return apply(*as_leaves(leading(args, options)))
        return private.redispatch_below_autograd(call, keyset, args, options)

    return record


def make_functions(op: Op) -> tuple[Function, Function]:
    """Make the autograd functions of the native kernels of ``op`` and of its backward."""
    derivatives = OfFormula(op) if op.terms is None else OfTerms(op, op.terms)
    return _forward_function(op, derivatives), _backward_function(op, derivatives)


def _forward_function(op: Op, derivatives: OfFormula | OfTerms) -> Function:
    call, options, saves_result, count = op.forward.call, op.options, bool(op.saved_result), len(op.tensors)
    no_gradient = (None,)

    def forward(*inputs: Any) -> Tensor:
        with private.below_autograd():
            return call(*inputs[:count], **dict(zip(options, inputs[count:], strict=False)))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        saved = (output, *inputs[:count]) if saves_result else inputs[:count]
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.options = dict(zip(options, inputs[count:], strict=False))

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = op.apply_backward((grad, *ctx.saved_tensors), ctx.options, ctx.needs_input_grad[:count])
        return (*gradients, *no_gradient * len(ctx.options))

    def jvp(ctx: Any, saved: Sequence[Any], *tangents: Tensor | None) -> Tensor | None:
        return derivatives.tangent(saved[-count:], tangents[:count], ctx.options)

    arguments = ", ".join((*op.tensors, *op.options))
    doc = f"""The native {op.name} as an autograd function, the derivative of ``torch.ops.elsa.{op.name}``, too.

    ``apply({arguments})``; see :func:`elsa_ext.{op.name}`. The last options may be left
    out: they are their default.
    """
    return _class(op, "Function", doc, forward, setup_context, backward, jvp)


def _backward_function(op: Op, derivatives: OfFormula | OfTerms) -> Function:
    call, options, count = op.backward.call, op.backward.options, len(op.backward.tensors)
    end = count + len(op.options)

    def forward(*inputs: Any) -> Any:
        with private.below_autograd():
            return call(*inputs[:count], **dict(zip(options, inputs[count:], strict=False)))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:count])
        ctx.save_for_forward(*inputs[:count])
        ctx.options = dict(zip(op.options, inputs[count:end], strict=False))
        ctx.unsaved = (None,) * len(inputs[count:])
        tensors = inputs[count - len(op.tensors) : count]
        needs = [*inputs[end:], *[True] * len(tensors)]  # those that are left out are true
        ctx.asked = [need and tensor is not None for need, tensor in zip(needs, tensors, strict=False)]
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:count]
        given = only(ctx.asked, directions)
        gradients = derivatives.gradients_of_backward(ctx.saved_tensors, given, ctx.options, wanted)
        return (*gradients, *ctx.unsaved)

    def jvp(ctx: Any, saved: Sequence[Any], *tangents: Tensor | None) -> tuple[Tensor, ...]:
        parts = derivatives.tangents_of_backward(saved, tangents[:count], ctx.options, ctx.asked)
        # PyTorch takes no None here. What nobody asked for is empty, and so is its tangent.
        tensors = saved[-len(op.tensors) :]
        shapes = [tensor.shape if ask else (0,) for ask, tensor in zip(ctx.asked, tensors, strict=True)]
        pairs = zip(parts, shapes, strict=True)
        return tuple(saved[0].new_zeros(shape) if part is None else part for part, shape in pairs)

    doc = f"The native {op.backward.name} as an autograd function."
    return _class(op, "BackwardFunction", doc, forward, setup_context, backward, jvp)


def _class(op: Op, kind: str, doc: str, *rules: Callable[..., Any]) -> Function:
    """Make an autograd function of its rules, in the module of ``op`` and under the name that it has there."""
    forward, setup_context, backward, jvp = rules
    name = "".join(word.capitalize() for word in op.name.split("_")) + kind
    members = {
        "__doc__": doc,
        "__module__": op.function.__module__,
        "__qualname__": name,
        "generate_vmap_rule": True,
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(backward),
        "jvp": staticmethod(_forward_rule(jvp)),
    }
    return new_class(name, (torch.autograd.Function,), exec_body=lambda namespace: namespace.update(members))


def _forward_rule(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``jvp(ctx, saved tensors, *tangents)`` an ``autograd.Function``'s rule that can be differentiated itself.

    PyTorch switches forward mode off in such a rule, so that the derivative of a derivative comes out as zero.
    """

    @wraps(jvp)
    def rule(ctx: Any, *tangents: Any) -> Any:
        with private.forward_mode():
            # Without the tangents of this level: a tangent cannot have one of its own there.
            saved = [None if tensor is None else private.primal(tensor) for tensor in ctx.saved_tensors]
            return jvp(ctx, saved, *tangents)

    return rule

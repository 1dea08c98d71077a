"""Derivatives of the registered ops, in both modes: ``torch.library.register_autograd`` knows reverse mode alone."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.autograd import forward_ad

_LIBRARY = torch.library.Library("elsa", "IMPL")


def below() -> Any:
    """Return a context in which a call of an op goes past its derivative, to its kernel."""
    return torch._C._AutoDispatchBelowAutograd()


def register(op: Any, function: type[torch.autograd.Function]) -> None:
    """Have ``op`` apply ``function`` to all its arguments, in their order, where a tensor needs a derivative."""
    arguments = [(argument.name, argument.default_value) for argument in op._schema.arguments]

    def kernel(keyset: Any, *args: Any, **options: Any) -> Any:
        if _needs_derivative(*args):
            # The dispatcher leaves out what equals its default.
            rest = [options.get(name, default) for name, default in arguments[len(args) :]]
            return function.apply(*args, *rest)
        with below():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args, **options)

    _LIBRARY.impl(op.name().split("::")[1], kernel, "Autograd", with_keyset=True)


def forward_rule(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``jvp(ctx, saved tensors, *tangents)`` an ``autograd.Function``'s rule that can be differentiated itself.

    PyTorch switches forward mode off in such a rule, so that the derivative of a derivative comes out as zero.
    """

    @wraps(jvp)
    def rule(ctx: Any, *tangents: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            # Without the tangents of this level: a tangent cannot have one of its own there.
            saved = [None if tensor is None else _primal(tensor) for tensor in ctx.saved_tensors]
            return jvp(ctx, saved, *tangents)

    return rule


def _primal(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` without its tangent of this level; ``unpack_dual`` has no batching rule."""
    functorch = torch._C._functorch
    if functorch.is_batchedtensor(tensor):
        level, dim = functorch.maybe_get_level(tensor), functorch.maybe_get_bdim(tensor)
        return functorch._add_batch_dim(_primal(functorch.get_unwrapped(tensor)), dim, level)
    return forward_ad.unpack_dual(tensor).primal


def _needs_derivative(*args: Any) -> bool:
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return True
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()

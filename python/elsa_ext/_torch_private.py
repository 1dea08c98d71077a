"""All that the package takes from PyTorch without a public name: what a new PyTorch may break is in this file alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Marked = TypeVar("Marked", bound=Callable[..., Any])


# The registered ops


def schema(op: Any) -> Any:
    """Return the schema of a registered op: PyTorch parses it, and shows it nowhere else."""
    return op._schema


def has_kernel(op: str, device: str) -> bool:
    """Tell whether a loaded library has a kernel of ``op`` for a device type: only the dispatcher knows."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(op, device.upper())


def register_builtin(function: Callable[..., Any], op: str) -> None:
    """Have TorchScript take ``op`` for ``function``: it compiles no function with keyword-only defaults."""
    torch.jit._builtins._register_builtin(function, op)


def shape_or_constant(value: Any) -> Any:
    """Return the sizes of a tensor, or else the constant, that a value of a TorchScript graph stands for."""
    if value.node().kind() == "prim::ListConstruct":
        return [element.toIValue() for element in value.node().inputs()]
    return value.type().sizes() if isinstance(value.type(), torch._C.TensorType) else value.toIValue()


# Derivatives: torch.library.register_autograd knows reverse mode alone, so that we need what it is made of


def needs_derivative(args: Sequence[Any]) -> bool:
    """Tell whether a call with ``args`` has to be recorded: in reverse mode, or because forward mode is on."""
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return True
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()


def below_autograd() -> Any:
    """Return a context in which a call of an op goes past its derivative, to its kernel."""
    return torch._C._AutoDispatchBelowAutograd()


def redispatch(op: Any) -> Callable[..., Any]:
    """Return the function ``(keyset, *args, **options)`` that hands a call on to the kernel for one of the keys.

    A new call would lose the dispatch keys it has.
    """
    return op._handle.redispatch_boxed


AFTER_AUTOGRAD = torch._C._after_autograd_keyset
"""The keys of the dispatcher that come after derivatives."""


def forward_mode() -> Any:
    """Return a context with forward mode on, which PyTorch switches off inside the jvp of an autograd function."""
    return forward_ad._set_fwd_grad_enabled(True)


def primal(tensor: Tensor) -> Tensor:
    """Return ``tensor`` without its tangent of this level, under vmap too: ``unpack_dual`` has no batching rule."""
    functorch = torch._C._functorch
    if functorch.is_batchedtensor(tensor):
        level, dim = functorch.maybe_get_level(tensor), functorch.maybe_get_bdim(tensor)
        return functorch._add_batch_dim(primal(functorch.get_unwrapped(tensor)), dim, level)
    return forward_ad.unpack_dual(tensor).primal


def transforms_active() -> bool:
    """Tell whether a torch.func transform is: it takes an ``autograd.Function``, no derivative of a registered op."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


# torch.compile


def constant_result(function: Marked) -> Marked:
    """Do what ``torch.compiler.assume_constant_result`` does after a second, in which it imports the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# What a module runs beside its forward


def global_hooks() -> Iterable[Callable[..., Any]]:
    """Return the hooks that somebody put on all modules."""
    if not modules._has_any_global_hook():
        return ()
    kinds = (
        modules._global_forward_pre_hooks,
        modules._global_forward_hooks,
        modules._global_backward_pre_hooks,
        modules._global_backward_hooks,
    )
    return [hook for hooks in kinds for hook in hooks.values()]


def has_hooks(module: nn.Module) -> bool:
    """Tell whether calling ``module`` runs hooks of its own."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def submodules(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return what ``module`` calls in its forward: ``named_children`` leaves out a module that is there twice."""
    return module._modules


def own_parameters(module: nn.Module) -> Iterable[nn.Parameter | None]:
    """Return the parameters of ``module`` itself: ``parameters`` takes three times as long, at every call of ELSA."""
    return module._parameters.values()


def is_plain(parameter: Tensor | None) -> bool:
    """Tell whether a parameter is a tensor itself, not a wrapper with a meaning of its own (quantised, distributed)."""
    return type(parameter) is nn.Parameter or parameter is None or not is_traceable_wrapper_subclass(parameter)

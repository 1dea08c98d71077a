"""Registers an op with PyTorch: derivatives, fake kernels, vmap, autocast, TorchScript; and with this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _torch_private as private
from .. import backend
from .._ops import add_op_namespace_prefix, ops
from . import autocast, autograd, vmap
from .checks import check_beside, empty_in_format
from .op import Op, Registered

OPS: dict[str, Op] = {}
"""The ops by their names, in the order of ``ops/__init__.py``."""

_LIBRARY = torch.library.Library(ops.name, "IMPL")


def register(op: Op) -> Op:
    """Tell PyTorch of an op, and everything in this package that goes over the ops, and return it."""
    op.functions = autograd.make_functions(op)
    batching = (vmap.rule(op), vmap.backward_rule(op))
    for direction, function, fake, rule in zip(
        (op.forward, op.backward), op.functions, (_fake(op), _fake_backward(op)), batching, strict=True
    ):
        _LIBRARY.impl(direction.name, autograd.kernel(direction, function), "Autograd", with_keyset=True)
        torch.library.register_fake(add_op_namespace_prefix(direction.name), fake)
        torch.library.register_vmap(add_op_namespace_prefix(direction.name), rule)
    for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
        _LIBRARY.impl(op.name, autocast.kernel(op.forward.call, op.is_cast, device), key)
    private.register_builtin(op.function, add_op_namespace_prefix(op.name))
    backend.find_kernels(op.name)
    OPS[op.name] = op
    return op


def check_backward(op: Op, tensors: dict[str, Any], options: dict[str, Any]) -> None:
    """Check the tensors of the backward op, or those of them that are given; its result may be missing."""
    name, inputs = op.backward.name, [tensors[name] for name in op.tensors]
    size = op.check(name, *inputs, **options)
    for argument in (*op.saved_result, "grad"):
        if argument in tensors:
            check_beside(name, argument, tensors[argument], op.tensors[0], inputs[0], size)


def _fake(op: Op) -> Callable[..., Tensor]:
    def fake(*args: Any, **options: Any) -> Tensor:
        given = _named(op.forward, args, options)
        first, *others = (given.pop(name) for name in op.tensors)
        return empty_in_format(first, op.check(op.name, first, *others, **given))

    return fake


def _fake_backward(op: Op) -> Callable[..., tuple[Tensor, ...]]:
    def fake(*args: Any, **options: Any) -> tuple[Tensor, ...]:
        given = _named(op.backward, args, options)
        check_backward(op, given, {name: given[name] for name in op.options})
        first = given[op.tensors[0]]

        def gradient(name: str, need: bool) -> Tensor:
            tensor = given[name]
            if tensor is None or not need:
                return first.new_empty(0)
            return empty_in_format(tensor, tensor.shape) if name in op.maps else tensor.new_empty(tensor.shape)

        return tuple(gradient(name, given[need]) for name, need in zip(op.tensors, op.needs, strict=True))

    return fake


def _named(op: Registered, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    return dict(zip((*op.tensors, *op.options), op.complete(args, options), strict=True))

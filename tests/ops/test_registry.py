"""What follows from a registration: names, signatures and functions that nobody writes by hand."""

import inspect
import pickle
from types import ModuleType
from typing import Any

import elsa_ext
import pytest
import torch
from elsa_ext import _C
from elsa_ext.ops import flops
from elsa_ext.ops.registration import OPS

each = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


def arguments(schema: torch.FunctionSchema) -> list[tuple[str, bool, Any]]:
    """Name, whether it is a keyword alone, and default of every argument of a schema."""

    def default(argument: Any) -> Any:
        if not argument.has_default_value():
            return inspect.Parameter.empty
        # The schema writes one number for both axes, and PyTorch shows two.
        return argument.default_value[0] if isinstance(argument.default_value, list) else argument.default_value

    return [(argument.name, argument.kwarg_only, default(argument)) for argument in schema.arguments]


def parameters(function: Any) -> list[tuple[str, bool, Any]]:
    """The same of a Python function."""
    given = inspect.signature(function).parameters.values()
    return [(p.name, p.kind is p.KEYWORD_ONLY, p.default) for p in given]


@each
def test_public_function_has_the_arguments_of_the_op(op) -> None:
    schema = getattr(torch.ops.elsa, op.name).default._schema
    assert parameters(getattr(elsa_ext, op.name)) == arguments(schema)
    assert parameters(getattr(flops, op.name)) == arguments(schema)
    assert parameters(getattr(elsa_ext.reference, op.name)) == arguments(schema)
    grad = ("grad", False, inspect.Parameter.empty)
    assert parameters(getattr(elsa_ext.reference, f"{op.name}_backward")) == [grad, *arguments(schema)]


@each
def test_what_the_package_exports(op) -> None:
    function, backward = op.functions
    assert {op.name, function.__name__} <= set(elsa_ext.__all__)
    assert getattr(elsa_ext, function.__name__) is function
    for made in (function, backward, getattr(elsa_ext, op.name)):
        assert made.__doc__ and pickle.loads(pickle.dumps(made)) is made


@pytest.mark.parametrize("module", [flops, elsa_ext.reference], ids=lambda module: module.__name__)
def test_functions_of_every_op(module: ModuleType) -> None:
    for name in [name for op in OPS for name in (op, f"{op}_backward")]:
        function = getattr(module, name)
        assert name in dir(module) and function.__name__ == name and function.__doc__
        assert function is getattr(module, name)
    with pytest.raises(AttributeError, match=f"{module.__name__}.*'conv2d'"):
        _ = module.conv2d


@each
def test_calls_that_the_oracle_cannot_bind(op) -> None:
    with pytest.raises(TypeError, match=rf"{op.name}\(\) missing a required argument"):
        getattr(elsa_ext.reference, op.name)()


def test_launch_plan() -> None:
    sizes = {"batch": 8, "channels": 96, "height": 56, "width": 56, "heads": 3, "kernel_size": 7}
    assert elsa_ext.launch_plan("ghost_head", **sizes) == _C.launch_plan("ghost_head", **sizes)
    with pytest.raises(ValueError, match="no op has the name conv2d"):
        elsa_ext.launch_plan("conv2d")

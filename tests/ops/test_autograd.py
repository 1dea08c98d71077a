"""Derivatives of every op: numerical, partial, second, third, and through torch.func."""

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, Tensors, make, make_grad
from ops.checks import backward_arguments, call, evaluate, function_of, registered, to_fake
from ops.pairwise import pairwise
from ops.registry import OPS, SMALL, every
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

ONE_BY_ONE = [(case, name) for case in SMALL for name in case.given]


@pytest.mark.thorough
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_first_and_second_derivative_by_every_element(unemulated: Backend, case: Case) -> None:
    function, leaves = function_of(case, make(case, device=unemulated.device), case.given)
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


@pytest.mark.parametrize("case", every("options"), ids=str)
def test_first_and_second_derivative(backend: Backend, case: Case) -> None:
    function, leaves = function_of(case, make(case, device=backend.device), case.given)
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize(("case", "name"), ONE_BY_ONE, ids=str)
def test_derivative_for_one_input_alone(unemulated: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=unemulated.device), [name])
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("case", [op.kernels[-1] for op in OPS], ids=str)
def test_gradient_does_not_depend_on_who_else_asks(backend: Backend, case: Case) -> None:
    tensors = make(case, torch.float32, backend.device)
    grad = make_grad(case, torch.float32, backend.device)
    everyone = evaluate(case, tensors, grad)
    for name in case.given:
        function, leaves = function_of(case, tensors, [name])
        (alone,) = torch.autograd.grad(function(*leaves), leaves, grad)
        torch.testing.assert_close(alone, everyone[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_third_derivative(unemulated: Backend, case: Case) -> None:
    """Three times through the op and three times through the formula: the same numbers."""

    def third(tensors: Tensors) -> tuple[Tensor, ...]:
        function, leaves = function_of(case, tensors, case.given)
        result = function(*leaves).sin().sum()
        for _ in range(2):
            grads = torch.autograd.grad(result, leaves, create_graph=True)
            result = sum(grad.sin().sum() for grad in grads)
        return torch.autograd.grad(result, leaves)

    tensors = make(case, device=unemulated.device)
    actual = third(tensors)
    with elsa_ext.use_backend("torch"):
        expected = third(tensors)
    for name, got, want in zip(case.given, actual, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


class BackwardCalls(TorchDispatchMode):
    """Notes which gradients each call of a backward op computes."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[list[bool]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.namespace == "elsa" and func._opname.endswith("_backward"):
            self.computed.append([grad.numel() > 0 for grad in result])
        return result


@pytest.mark.parametrize(("case", "name"), ONE_BY_ONE, ids=str)
def test_gradients_that_nobody_asked_for_are_not_computed(native: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=native.device), [name])
    with BackwardCalls() as calls:
        function(*leaves).sum().backward()
    assert calls.computed == [[name == other for other in case.given]]


def flags_of(case: Case) -> list[str]:
    """The options of the backward op that say which gradients are wanted, one for each tensor."""
    arguments = registered(case, backward=True)._schema.arguments
    return [argument.name for argument in arguments if argument.name.startswith("need_")]


def wanted_flags(case: Case) -> list[tuple[bool, ...]]:
    """All, each alone, and every two of them in each of their four ways."""
    count = len(case.shapes)
    alone = [tuple(index == one for index in range(count)) for one in range(count)]
    return list(dict.fromkeys([(True,) * count, *alone, *pairwise(*[(False, True)] * count)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", every("edges"), ids=str)
def test_need_flags(native: Backend, case: Case, dtype: torch.dtype) -> None:
    """The gradients that are wanted are the same as among all, and the others are empty."""
    arguments = backward_arguments(case, dtype=dtype, device=native.device)
    backward = registered(case, backward=True)
    everything = backward(**arguments)
    for wanted in wanted_flags(case):
        some = backward(**arguments, **dict(zip(flags_of(case), wanted, strict=True)))
        for wants, name, one, same in zip(wanted, case.shapes, some, everything, strict=True):
            assert same.shape == (torch.Size([0]) if arguments[name] is None else arguments[name].shape)
            if wants:
                torch.testing.assert_close(one, same, msg=lambda text, name=name: f"{name}: {text}")
            else:
                assert one.shape == (0,) and one.dtype == same.dtype, (wanted, name)


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_that_nobody_asked_for_are_as_the_fake_kernels_say(
    native: Backend, case: Case, dtype: torch.dtype
) -> None:
    arguments = backward_arguments(case, dtype=dtype, device=native.device)
    backward = registered(case, backward=True)
    nothing = dict.fromkeys(flags_of(case), False)
    real = backward(**arguments, **nothing)
    with FakeTensorMode() as mode:
        fake = backward(**to_fake(arguments, mode), **nothing)
    assert [(part.shape, part.dtype) for part in real] == [(part.shape, part.dtype) for part in fake]


@pytest.mark.parametrize("case", every("options"), ids=str)
def test_autograd_functions_are_the_op(native: Backend, case: Case) -> None:
    tensors = make(case, torch.float32, native.device)
    grad = make_grad(case, torch.float32, native.device)
    expected = evaluate(case, tensors, grad)
    leaves = {name: None if t is None else t.detach().requires_grad_() for name, t in tensors.items()}
    name = "".join(word.capitalize() for word in case.op.split("_"))
    out = getattr(elsa_ext, f"{name}Function").apply(*leaves.values(), *case.options.values())
    assert torch.equal(out, expected["out"])
    out.backward(grad)
    for name in case.given:
        assert torch.equal(leaves[name].grad, expected[name]), name


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradient_of_a_sum(backend: Backend, case: Case) -> None:
    tensors = make(case, device=backend.device)
    function, leaves = function_of(case, tensors, case.given)
    function(*leaves).sum().backward()
    expected = evaluate(case, tensors, torch.ones(case.out_shape, dtype=torch.float64, device=backend.device))
    for name, leaf in zip(case.given, leaves, strict=True):
        torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_inference_mode(unemulated: Backend, case: Case) -> None:
    tensors = make(case, device=unemulated.device)
    with torch.inference_mode():
        out = call(case, tensors)
    assert torch.equal(out, call(case, tensors))


@pytest.mark.parametrize(("case", "name"), ONE_BY_ONE, ids=str)
def test_jacrev(unemulated: Backend, case: Case, name: str) -> None:
    tensors = make(case, device=unemulated.device)
    function, leaves = function_of(case, tensors, [name])
    jacobian = torch.func.jacrev(function)(leaves[0].detach())
    expected = torch.autograd.functional.jacobian(function, leaves[0].detach())
    torch.testing.assert_close(jacobian, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_nested_transforms(unemulated: Backend, case: Case) -> None:
    """vmap over grad over grad: two nested transforms, then a batch of directions."""
    tensors = make(case, device=unemulated.device)
    function, leaves = function_of(case, tensors, case.given)
    values = tuple(leaf.detach() for leaf in leaves)

    def slope(direction: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda *args: function(*args).sin().sum())
        return torch.func.grad(lambda first: (gradient(first, *values[1:]) * direction).sum())(values[0])

    directions = torch.randn(3, *values[0].shape, dtype=torch.float64, device=unemulated.device)
    actual = torch.vmap(slope)(directions)
    (gradient,) = torch.autograd.grad(function(*leaves).sin().sum(), leaves[:1], create_graph=True)
    for direction, row in zip(directions, actual, strict=True):
        (expected,) = torch.autograd.grad(gradient, leaves[:1], direction, retain_graph=True)
        torch.testing.assert_close(row, expected, rtol=1e-11, atol=1e-12)

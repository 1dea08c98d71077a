"""Derivatives of both ops: numerical, partial, second, third, and through torch.func."""

from collections.abc import Callable, Iterable
from itertools import chain, combinations

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, GhostHead, HadamardAttention, Tensors, make, make_grad
from ops.checks import backward_arguments, call, evaluate, to_fake
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

GHOST_HEAD = GhostHead(channels=4, height=4, width=3)
HADAMARD_ATTENTION = HadamardAttention(batch=1, channels=4, height=3, width=3)
BOTH = [GHOST_HEAD, HADAMARD_ATTENTION]
CASES = [
    *BOTH,
    GhostHead(channels=2, height=5, width=4, kernel_size=5, dilation=2, stride=2, mul="sample", add="sample"),
    GhostHead(channels=2, height=4, width=3, mul="none", add="none"),
    GhostHead(channels=2, height=4, width=3, mul="none"),
    GhostHead(batch=1, channels=2, heads=1, height=3, width=4, add="none", kernel_size=7),
    HadamardAttention(batch=2, channels=2, height=4, width=5, stride=2, dilation=2, conv_bias=False, proj_rank=2),
    HadamardAttention(batch=1, channels=4, groups=4, height=2, width=3, proj_groups=2, proj_bias=False),
]


def given(case: Case) -> list[str]:
    """The tensor arguments that ``case`` gives."""
    return [name for name, shape in case.shapes.items() if shape is not None]


def function_of(case: Case, tensors: Tensors, names: Iterable[str]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """``case`` as a function of the arguments ``names`` alone, and their values as leaves that require a gradient."""
    names = tuple(names)

    def function(*chosen: Tensor) -> Tensor:
        return call(case, {**tensors, **dict(zip(names, chosen, strict=True))})

    return function, tuple(tensors[name].detach().clone().requires_grad_() for name in names)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_and_second_derivative(backend: Backend, case: Case) -> None:
    function, leaves = function_of(case, make(case, device=backend.device), given(case))
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case in BOTH for name in given(case)], ids=str)
def test_derivative_for_one_input_alone(backend: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=backend.device), [name])
    assert gradcheck(function, leaves)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("case", [GhostHead(channels=40, heads=5), HadamardAttention(channels=12, stride=2)], ids=str)
def test_gradient_does_not_depend_on_who_else_asks(backend: Backend, case: Case) -> None:
    tensors = make(case, torch.float32, backend.device)
    grad = make_grad(case, torch.float32, backend.device)
    everyone = evaluate(case, tensors, grad)
    for name in given(case):
        function, leaves = function_of(case, tensors, [name])
        (alone,) = torch.autograd.grad(function(*leaves), leaves, grad)
        torch.testing.assert_close(alone, everyone[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_third_derivative(backend: Backend, case: Case) -> None:
    """Three times through the op and three times through the formula: the same numbers."""

    def third(tensors: Tensors) -> tuple[Tensor, ...]:
        function, leaves = function_of(case, tensors, given(case))
        result = function(*leaves).sin().sum()
        for _ in range(2):
            grads = torch.autograd.grad(result, leaves, create_graph=True)
            result = sum(grad.sin().sum() for grad in grads)
        return torch.autograd.grad(result, leaves)

    tensors = make(case, device=backend.device)
    actual = third(tensors)
    with elsa_ext.use_backend("torch"):
        expected = third(tensors)
    for name, got, want in zip(given(case), actual, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


class BackwardCalls(TorchDispatchMode):
    """Notes which gradients each call of a backward op computes."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[list[bool]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.elsa.ghost_head_backward.default, torch.ops.elsa.hadamard_attention_backward.default):
            self.computed.append([grad.numel() > 0 for grad in result])
        return result


@pytest.mark.parametrize(("case", "name"), [(case, name) for case in BOTH for name in given(case)], ids=str)
def test_gradients_that_nobody_asked_for_are_not_computed(native: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=native.device), [name])
    with BackwardCalls() as calls:
        function(*leaves).sum().backward()
    assert calls.computed == [[name == other for other in given(case)]]


def subsets(flags: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(flags, count) for count in range(len(flags) + 1)))


def check_need_flags(case: Case, device: str, flags: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """The gradients that are wanted are the same as among all, and the others are empty."""
    arguments = backward_arguments(case, device=device)
    backward = getattr(torch.ops.elsa, f"{case.op}_backward")
    everything = backward(**arguments)
    some = backward(**arguments, **{flag: flag in wanted for flag in flags})
    for flag, name, one, same in zip(flags, case.shapes, some, everything, strict=True):
        assert same.shape == (torch.Size([0]) if arguments[name] is None else arguments[name].shape)
        if flag in wanted:
            torch.testing.assert_close(one, same, rtol=1e-12, atol=1e-12)
        else:
            assert one.shape == (0,) and one.dtype == same.dtype, name


FLAGS = ("need_value", "need_attn", "need_mul", "need_add")


@pytest.mark.parametrize("wanted", subsets(FLAGS), ids=str)
@pytest.mark.parametrize(("mul", "add"), [("shared", "sample"), ("none", "shared"), ("none", "none")])
def test_need_flags(native: Backend, wanted: tuple[str, ...], mul: str, add: str) -> None:
    check_need_flags(GhostHead(mul=mul, add=add, kernel_size=5), native.device, FLAGS, wanted)


HADAMARD_FLAGS = (
    *("need_query", "need_key", "need_conv_weight"),
    *("need_conv_bias", "need_proj_weight", "need_proj_bias"),
)


@pytest.mark.parametrize("wanted", subsets(HADAMARD_FLAGS), ids=str)
@pytest.mark.parametrize(
    "case",
    [
        HadamardAttention(channels=8, groups=2, kernel_size=5),  # CUDA: the kernels with a compile-time K, and any K
        HadamardAttention(channels=6, stride=2, conv_bias=False, proj_bias=False),
    ],
    ids=str,
)
def test_need_flags_of_hadamard_attention(native: Backend, case: HadamardAttention, wanted: tuple[str, ...]) -> None:
    check_need_flags(case, native.device, HADAMARD_FLAGS, wanted)


@pytest.mark.parametrize("case", BOTH, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_that_nobody_asked_for_are_as_the_fake_kernels_say(
    native: Backend, case: Case, dtype: torch.dtype
) -> None:
    arguments = backward_arguments(case, dtype=dtype, device=native.device)
    backward = getattr(torch.ops.elsa, f"{case.op}_backward")
    flags = FLAGS if case.op == "ghost_head" else HADAMARD_FLAGS
    real = backward(**arguments, **dict.fromkeys(flags, False))
    with FakeTensorMode() as mode:
        fake = backward(**to_fake(arguments, mode), **dict.fromkeys(flags, False))
    assert [(part.shape, part.dtype) for part in real] == [(part.shape, part.dtype) for part in fake]


def test_hadamard_backward_gives_empty_tensors_for_missing_biases(native: Backend) -> None:
    case = HadamardAttention(conv_bias=False, proj_bias=False)
    grads = torch.ops.elsa.hadamard_attention_backward(**backward_arguments(case, device=native.device))
    shapes = [tuple(grad.shape) for grad in grads]
    assert shapes == [shape or (0,) for shape in case.shapes.values()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autograd_functions_are_the_op(native: Backend, case: Case) -> None:
    tensors = make(case, torch.float32, native.device)
    grad = make_grad(case, torch.float32, native.device)
    expected = evaluate(case, tensors, grad)
    leaves = {name: None if t is None else t.detach().requires_grad_() for name, t in tensors.items()}
    name = {"ghost_head": "GhostHeadFunction", "hadamard_attention": "HadamardAttentionFunction"}[case.op]
    out = getattr(elsa_ext, name).apply(*leaves.values(), *case.options.values())
    assert torch.equal(out, expected["out"])
    out.backward(grad)
    for name in given(case):
        assert torch.equal(leaves[name].grad, expected[name]), name


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_gradient_of_a_sum(backend: Backend, case: Case) -> None:
    tensors = make(case, device=backend.device)
    function, leaves = function_of(case, tensors, given(case))
    function(*leaves).sum().backward()
    expected = evaluate(case, tensors, torch.ones(case.out_shape, dtype=torch.float64, device=backend.device))
    for name, leaf in zip(given(case), leaves, strict=True):
        torch.testing.assert_close(leaf.grad, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_inference_mode(backend: Backend, case: Case) -> None:
    tensors = make(case, device=backend.device)
    with torch.inference_mode():
        out = call(case, tensors)
    assert torch.equal(out, call(case, tensors))


@pytest.mark.parametrize(("case", "name"), [(case, name) for case in BOTH for name in given(case)], ids=str)
def test_jacrev(backend: Backend, case: Case, name: str) -> None:
    tensors = make(case, device=backend.device)
    function, leaves = function_of(case, tensors, [name])
    jacobian = torch.func.jacrev(function)(leaves[0].detach())
    expected = torch.autograd.functional.jacobian(function, leaves[0].detach())
    torch.testing.assert_close(jacobian, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_nested_transforms(backend: Backend, case: Case) -> None:
    """vmap over grad over grad: two nested transforms, then a batch of directions."""
    tensors = make(case, device=backend.device)
    function, leaves = function_of(case, tensors, given(case))
    values = tuple(leaf.detach() for leaf in leaves)

    def slope(direction: Tensor) -> Tensor:
        gradient = torch.func.grad(lambda *args: function(*args).sin().sum())
        return torch.func.grad(lambda first: (gradient(first, *values[1:]) * direction).sum())(values[0])

    directions = torch.randn(3, *values[0].shape, dtype=torch.float64, device=backend.device)
    actual = torch.vmap(slope)(directions)
    (gradient,) = torch.autograd.grad(function(*leaves).sin().sum(), leaves[:1], create_graph=True)
    for direction, row in zip(directions, actual, strict=True):
        (expected,) = torch.autograd.grad(gradient, leaves[:1], direction, retain_graph=True)
        torch.testing.assert_close(row, expected, rtol=1e-11, atol=1e-12)

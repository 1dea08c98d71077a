"""Every malformed call raises, names the op and the argument, and says the same in every implementation."""

import re
from collections.abc import Callable
from typing import Any

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.bad_calls import BACKWARD, FORWARD, BadCall
from ops.cases import Case, GhostHead, HadamardAttention
from ops.checks import backward_arguments, forward_arguments, to_fake
from torch._subclasses.fake_tensor import FakeTensorMode


def message_of(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What ``function`` says when it rejects ``arguments``."""
    with pytest.raises((RuntimeError, TypeError)) as info:
        function(**arguments)
    return str(info.value)


def assert_names(message: str, op: str, words: tuple[str, ...]) -> None:
    """Assert that ``message`` begins with ``op`` and has every one of ``words``."""
    assert message.startswith(f"elsa::{op}: "), message
    assert "\n" not in message, message
    for word in words:
        assert re.search(rf"(?<![\w-])({word})(?!\w)", message), f"{word!r} is not in {message!r}"


def forward(op: str) -> Callable[..., Any]:
    """The public function of ``op``."""
    return getattr(elsa_ext, op)


def backward(op: str) -> Callable[..., Any]:
    """The registered backward op of ``op``."""
    return getattr(torch.ops.elsa, f"{op}_backward")


@pytest.mark.parametrize("bad", FORWARD, ids=str)
def test_forward_says_what_is_wrong(backend: Backend, bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case, dtype=torch.float32, device=backend.device))
    words = tuple(word.replace("cpu", backend.device) for word in bad.words)
    assert_names(message_of(forward(bad.case.op), arguments), bad.case.op, words)


@pytest.mark.parametrize("bad", BACKWARD, ids=str)
def test_backward_says_what_is_wrong(native: Backend, bad: BadCall) -> None:
    arguments = bad.apply(backward_arguments(bad.case, dtype=torch.float32, device=native.device))
    words = tuple(word.replace("cpu", native.device) for word in bad.words)
    assert_names(message_of(backward(bad.case.op), arguments), f"{bad.case.op}_backward", words)


@pytest.mark.parametrize("bad", FORWARD, ids=str)
def test_every_forward_says_the_same(bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case, dtype=torch.float32))
    expected = message_of(forward(bad.case.op), arguments)
    with elsa_ext.use_backend("torch"):
        assert message_of(forward(bad.case.op), arguments) == expected
    with FakeTensorMode() as mode:
        assert message_of(forward(bad.case.op), to_fake(arguments, mode)) == expected


@pytest.mark.parametrize("bad", BACKWARD, ids=str)
def test_every_backward_says_the_same(bad: BadCall) -> None:
    arguments = bad.apply(backward_arguments(bad.case, dtype=torch.float32))
    expected = message_of(backward(bad.case.op), arguments)
    with FakeTensorMode() as mode:
        assert message_of(backward(bad.case.op), to_fake(arguments, mode)) == expected


@pytest.mark.parametrize("case", list(dict.fromkeys(bad.case for bad in BACKWARD)), ids=str)
def test_the_calls_are_valid_before_their_change(backend: Backend, case: GhostHead | HadamardAttention) -> None:
    out = forward(case.op)(**forward_arguments(case, dtype=torch.float32, device=backend.device))
    assert out.shape == case.out_shape
    assert backward(case.op)(**backward_arguments(case, dtype=torch.float32, device=backend.device))


def of_shape(bad: BadCall) -> bool:
    """Tell whether ``bad`` is wrong in a shape or an option: what the oracle, which knows one dtype, can tell."""
    given = bad.apply(forward_arguments(bad.case, dtype=torch.float32)).values()
    tensors = [a for a in given if isinstance(a, torch.Tensor)]
    return all(a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() < 2**31 for a in tensors)


@pytest.mark.parametrize("bad", [bad for bad in FORWARD if of_shape(bad)], ids=str)
def test_the_oracle_says_the_same(bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case))
    arrays = {name: a.numpy() if isinstance(a, torch.Tensor) else a for name, a in arguments.items()}
    expected = message_of(forward(bad.case.op), arguments)
    assert message_of(getattr(elsa_ext.reference, bad.case.op), arrays) == expected


@pytest.mark.parametrize("bad", FORWARD[::5], ids=str)
def test_tensors_that_require_grad_get_the_same_message(backend: Backend, bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case, dtype=torch.float32, device=backend.device))
    expected = message_of(forward(bad.case.op), arguments)
    for argument in arguments.values():
        if isinstance(argument, torch.Tensor) and argument.is_floating_point():
            argument.requires_grad_()
    assert message_of(forward(bad.case.op), arguments) == expected


@pytest.mark.parametrize("op", ["ghost_head", "hadamard_attention"])
def test_options_are_keywords(op: str) -> None:
    case = GhostHead() if op == "ghost_head" else HadamardAttention()
    arguments = forward_arguments(case)
    with pytest.raises(TypeError, match=rf"{op}\(\)"):
        forward(op)(*arguments.values())
    with pytest.raises(RuntimeError, match=f"elsa::{op}"):
        getattr(torch.ops.elsa, op)(*arguments.values())


@pytest.mark.parametrize("name", ["value", "attn", "kernel_size"])
@pytest.mark.parametrize("wrong", [None, "7", 3.5], ids=str)
def test_arguments_of_the_wrong_type(name: str, wrong: object) -> None:
    arguments = {**forward_arguments(GhostHead()), name: wrong}
    for function in (torch.ops.elsa.ghost_head, elsa_ext.ghost_head):
        with pytest.raises((RuntimeError, TypeError), match=rf"(?s)elsa::ghost_head.*{name}"):
            function(**arguments)


@pytest.mark.parametrize("case", [GhostHead(), HadamardAttention()], ids=str)
@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, torch.Tensor.to_mkldnn, torch.Tensor.numpy])
def test_tensors_that_are_not_dense(backend: Backend, case: Case, make: Callable[[torch.Tensor], object]) -> None:
    arguments = forward_arguments(case, dtype=torch.float32)
    for name, argument in arguments.items():
        if isinstance(argument, torch.Tensor):
            message = message_of(forward(case.op), {**arguments, name: make(argument)})
            assert_names(message, case.op, (name, "tensor|torch.Tensor"))

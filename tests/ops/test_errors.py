"""Every malformed call raises, names the op and the argument, and says the same in every implementation."""

import re
from collections.abc import Callable
from typing import Any

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.cases import Case
from ops.checks import backward_arguments, forward, forward_arguments, registered, to_fake
from ops.registry import DEFAULT, every
from ops.spec import BadCall
from torch._subclasses.fake_tensor import FakeTensorMode

FORWARD: list[BadCall] = every("bad_calls")
BACKWARD: list[BadCall] = [*FORWARD, *every("bad_backward_calls")]


def message_of(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What ``function`` says when it rejects ``arguments``."""
    with pytest.raises((RuntimeError, TypeError)) as info:
        function(**arguments)
    return str(info.value)


def assert_names(message: str, op: str, words: str) -> None:
    """Assert that ``message`` begins with ``op`` and has every one of ``words``."""
    assert message.startswith(f"elsa::{op}: "), message
    assert "\n" not in message, message
    for word in words.split():
        assert re.search(rf"(?<![\w-])({word})(?!\w)", message), f"{word!r} is not in {message!r}"


def on_device(bad: BadCall, device: str) -> str:
    """The words of ``bad`` for tensors on ``device``."""
    return bad.words.replace("cpu", device)


@pytest.mark.parametrize("bad", FORWARD, ids=str)
def test_forward_says_what_is_wrong(native: Backend, bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case, dtype=torch.float32, device=native.device))
    message = message_of(forward(bad.case), arguments)
    assert_names(message, bad.case.op, on_device(bad, native.device))
    with elsa_ext.use_backend("torch"):
        assert message_of(forward(bad.case), arguments) == message
    with FakeTensorMode() as mode:
        assert message_of(forward(bad.case), to_fake(arguments, mode)) == message
    for argument in arguments.values():
        if isinstance(argument, torch.Tensor) and argument.is_floating_point():
            argument.requires_grad_()
    assert message_of(forward(bad.case), arguments) == message


@pytest.mark.parametrize("bad", BACKWARD, ids=str)
def test_backward_says_what_is_wrong(native: Backend, bad: BadCall) -> None:
    arguments = bad.apply(backward_arguments(bad.case, dtype=torch.float32, device=native.device))
    backward = registered(bad.case, backward=True)
    message = message_of(backward, arguments)
    assert_names(message, f"{bad.case.op}_backward", on_device(bad, native.device))
    with FakeTensorMode() as mode:
        assert message_of(backward, to_fake(arguments, mode)) == message


@pytest.mark.parametrize("case", list(dict.fromkeys(bad.case for bad in BACKWARD)), ids=str)
def test_the_calls_are_valid_before_their_change(backend: Backend, case: Case) -> None:
    out = forward(case)(**forward_arguments(case, dtype=torch.float32, device=backend.device))
    assert out.shape == case.out_shape
    assert registered(case, backward=True)(**backward_arguments(case, dtype=torch.float32, device=backend.device))


def of_shape(bad: BadCall) -> bool:
    """Tell whether ``bad`` is wrong in a shape or an option: what the oracle, which knows one dtype, can tell."""
    given = bad.apply(forward_arguments(bad.case, dtype=torch.float32)).values()
    tensors = [a for a in given if isinstance(a, torch.Tensor)]
    return all(a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() < 2**31 for a in tensors)


@pytest.mark.parametrize("bad", [bad for bad in FORWARD if of_shape(bad)], ids=str)
def test_the_oracle_says_the_same(bad: BadCall) -> None:
    arguments = bad.apply(forward_arguments(bad.case))
    arrays = {name: a.numpy() if isinstance(a, torch.Tensor) else a for name, a in arguments.items()}
    expected = message_of(forward(bad.case), arguments)
    assert message_of(getattr(elsa_ext.reference, bad.case.op), arrays) == expected


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_options_are_keywords(case: Case) -> None:
    arguments = forward_arguments(case)
    with pytest.raises(TypeError, match=rf"{case.op}\(\)"):
        forward(case)(*arguments.values())
    with pytest.raises(RuntimeError, match=f"elsa::{case.op}"):
        registered(case)(*arguments.values())


@pytest.mark.parametrize("case", DEFAULT, ids=str)
@pytest.mark.parametrize("wrong", [None, "7", 3.5], ids=str)
def test_arguments_of_the_wrong_type(case: Case, wrong: object) -> None:
    for name in (*case.images, next(iter(case.options))):
        arguments = {**forward_arguments(case), name: wrong}
        for function in (registered(case), forward(case)):
            with pytest.raises((RuntimeError, TypeError), match=rf"(?s)elsa::{case.op}.*{name}"):
                function(**arguments)


@pytest.mark.parametrize("case", DEFAULT, ids=str)
@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, torch.Tensor.to_mkldnn, torch.Tensor.numpy])
def test_tensors_that_are_not_dense(unemulated: Backend, case: Case, make: Callable[[torch.Tensor], object]) -> None:
    arguments = forward_arguments(case, dtype=torch.float32)
    for name in case.given:
        message = message_of(forward(case), {**arguments, name: make(arguments[name])})
        assert_names(message, case.op, f"{name} tensor|torch.Tensor")

"""Tensors without the memory that their shape speaks of, and results that are too large for any memory."""

from collections.abc import Callable

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.cases import Case
from ops.checks import backward_arguments, forward, forward_arguments, registered
from ops.pairwise import pairwise
from ops.registry import DEFAULT, every
from ops.test_errors import message_of
from torch import Tensor


def freed(tensor: Tensor) -> Tensor:
    """As sharded training leaves parameters between two uses."""
    tensor.untyped_storage().resize_(0)
    return tensor


def shrunk(tensor: Tensor) -> Tensor:
    """All but its last byte."""
    tensor.untyped_storage().resize_(tensor.untyped_storage().nbytes() - 1)
    return tensor


def freed_behind_a_view(tensor: Tensor) -> Tensor:
    """A view that does not begin where its storage does."""
    wide = torch.cat([tensor, tensor])[len(tensor) :]
    return freed(wide)


def shrunk_behind_a_view(tensor: Tensor) -> Tensor:
    """A view that does not begin where its storage does, all but its last byte."""
    return shrunk(torch.cat([tensor, tensor])[len(tensor) :])


def beyond_a_view(tensor: Tensor) -> Tensor:
    """A view whose first elements are there, and whose last ones are not."""
    wide = torch.stack([tensor, tensor], -1)[..., 1]
    wide.untyped_storage().resize_(wide.untyped_storage().nbytes() // 2)
    return wide


WAYS = [freed, shrunk, freed_behind_a_view, shrunk_behind_a_view, beyond_a_view]


@pytest.mark.parametrize(
    ("way", "case", "backward", "dtype"),
    pairwise(WAYS, DEFAULT, [False, True], [torch.float32, torch.bfloat16]),
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_memory_that_is_not_there_is_named(
    native: Backend, case: Case, backward: bool, way: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    arguments_of = backward_arguments if backward else forward_arguments
    function = registered(case, backward) if backward else forward(case)
    names = [name for name, a in arguments_of(case, device=native.device).items() if isinstance(a, Tensor)]
    for name in names:
        # The matrices may be float32 beside 16-bit maps.
        arguments = arguments_of(case, dtype=dtype, device=native.device, matrix_dtype=torch.float32)
        arguments[name] = way(arguments[name])
        message = message_of(function, arguments)
        assert message.startswith(f"elsa::{case.op}{'_backward' if backward else ''}: {name} has shape "), message
        assert "bytes of memory behind it" in message


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_memory_that_is_gone_in_the_backward(native: Backend, case: Case) -> None:
    arguments = forward_arguments(case, device=native.device)
    leaf = next(iter(arguments.values())).requires_grad_()
    other = [a for a in arguments.values() if isinstance(a, Tensor)][1]
    out = forward(case)(**arguments)
    freed(other)
    with pytest.raises(RuntimeError, match=rf"elsa::{case.op}_backward: \w+ has shape"):
        torch.autograd.grad(out.sum(), leaf)


@pytest.mark.parametrize("case", [case for case in every("empty") if case.batch == 0], ids=str)
def test_an_empty_tensor_needs_no_memory(native: Backend, case: Case) -> None:
    arguments = forward_arguments(case, device=native.device)
    first = next(iter(arguments))
    arguments[first] = freed(arguments[first])
    assert forward(case)(**arguments).shape == case.out_shape


def huge(*shape: int) -> Tensor:
    """One number, seen everywhere."""
    return torch.ones(1).expand(shape)


@pytest.mark.parametrize("exponent", [16, 27])
def test_results_that_fit_nowhere(exponent: int) -> None:
    side = 2 ** (exponent // 2)
    with pytest.raises(RuntimeError, match=r"^elsa::ghost_head: ") as info:
        elsa_ext.ghost_head(huge(2**exponent, 2**8, side, side), huge(2**exponent, 1, side, side), kernel_size=1)
    assert "API call failed" not in str(info.value) and "\n" not in str(info.value)


def test_gradients_that_fit_nowhere() -> None:
    shape = (2**16, 2**10, 2**8, 2**8)
    with pytest.raises(RuntimeError, match=r"^elsa::ghost_head_backward: ") as info:
        torch.ops.elsa.ghost_head_backward(
            huge(*shape), huge(*shape), huge(shape[0], 1, *shape[2:]), None, None, kernel_size=1
        )
    assert "API call failed" not in str(info.value)


def test_more_taps_than_there_is_scratch_for() -> None:
    size = 2**31 - 1
    with pytest.raises(RuntimeError, match=r"^elsa::ghost_head: out of memory"):
        elsa_ext.ghost_head(torch.ones(1, 1, 1, 2), huge(1, size**2, 1, 2), kernel_size=size)

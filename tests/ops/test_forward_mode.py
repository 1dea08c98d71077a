"""Derivatives in forward mode: by ``torch.autograd.forward_ad``, by ``torch.func``, and over reverse mode."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, make
from ops.checks import function_of, registered
from ops.registry import SMALL, every
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

# PyTorch scripts its decompositions at the first call in forward mode, and warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*torch.jit.script. is (deprecated|not supported)")

NAMED = [(case, name) for case in SMALL for name in case.given]


@pytest.mark.parametrize("case", every("options"), ids=str)
def test_forward_mode(unemulated: Backend, case: Case) -> None:
    """Numerically, and for a batch of tangents by vmap; then the forward derivative of the reverse one."""
    function, leaves = function_of(case, make(case, device=unemulated.device), case.given)
    assert gradcheck(
        function,
        leaves,
        check_forward_ad=True,
        check_backward_ad=False,
        check_batched_forward_grad=True,
        fast_mode=True,
    )
    assert gradgradcheck(
        function, leaves, check_fwd_over_rev=True, check_rev_over_rev=False, check_undefined_grad=False, fast_mode=True
    )


@pytest.mark.parametrize(("case", "name"), NAMED, ids=str)
def test_jacfwd_and_hessian_for_one_input_alone(unemulated: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=unemulated.device), [name])
    value = leaves[0].detach()
    jacobian = torch.func.jacfwd(function)(value)
    torch.testing.assert_close(jacobian, torch.func.jacrev(function)(value), rtol=1e-11, atol=1e-12)

    def scalar(tensor: Tensor) -> Tensor:
        return function(tensor).sin().sum()

    hessian = torch.func.hessian(scalar)(value)
    expected = torch.autograd.functional.hessian(scalar, value)
    torch.testing.assert_close(hessian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_forward_over_forward(unemulated: Backend, case: Case) -> None:
    """The Hessian from two derivatives in forward mode, which PyTorch gives as zeros for an autograd.Function."""
    function, leaves = function_of(case, make(case, device=unemulated.device), case.given[:3])
    values = tuple(leaf.detach() for leaf in leaves)
    first, second = (tuple(map(torch.randn_like, values)) for _ in range(2))

    def scalar(*tensors: Tensor) -> Tensor:
        return function(*tensors).sin().sum()

    def slope(*tensors: Tensor) -> Tensor:
        return torch.func.jvp(scalar, tensors, first)[1]

    actual = torch.func.jvp(slope, values, second)[1]
    gradients = torch.func.jvp(torch.func.grad(scalar, argnums=tuple(range(len(values)))), values, second)[1]
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, first, strict=True))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def dual_call(call_op: Callable[..., Tensor], tensors: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    with forward_ad.dual_level():
        out = call_op(*map(forward_ad.make_dual, tensors, tangents))
        tangent = forward_ad.unpack_dual(out).tangent
    assert tangent is not None, "the tangent was lost"
    return tangent


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_registered_op_keeps_tangents(hardware: Backend, case: Case, requires_grad: bool) -> None:
    """``torch.ops.elsa`` itself, as TorchScript and exported programs call it, with and without reverse mode."""
    tensors = make(case, device=hardware.device)
    function, leaves = function_of(case, tensors, case.given)
    values = tuple(leaf.detach().requires_grad_(requires_grad) for leaf in leaves)
    tangents = tuple(map(torch.randn_like, values))

    def through_dispatcher(*chosen: Tensor) -> Tensor:
        arguments = {**tensors, **dict(zip(case.given, chosen, strict=True))}
        return registered(case)(*arguments.values(), **case.options)

    expected = torch.func.jvp(function, tuple(v.detach() for v in values), tangents)[1]
    torch.testing.assert_close(dual_call(through_dispatcher, values, tangents), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", every("empty"), ids=str)
def test_tangent_of_an_empty_result(unemulated: Backend, case: Case) -> None:
    function, leaves = function_of(case, make(case, device=unemulated.device), case.given)
    values = tuple(leaf.detach() for leaf in leaves)
    out, tangent = torch.func.jvp(function, values, values)
    assert tangent.shape == out.shape == torch.Size(case.out_shape)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_hessian_in_every_order_of_modes(unemulated: Backend, case: Case) -> None:
    small = dataclasses.replace(case, batch=1, height=2, width=2)
    function, leaves = function_of(small, make(small, device=unemulated.device), small.given[:2])
    values = tuple(leaf.detach() for leaf in leaves)

    def scalar(*tensors: Tensor) -> Tensor:
        return function(*tensors).sin().sum()

    expected = torch.autograd.functional.hessian(scalar, values)
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            actual = outer(inner(scalar, argnums=(0, 1)), argnums=(0, 1))(*values)
            for row, expected_row in zip(actual, expected, strict=True):
                for block, expected_block in zip(row, expected_row, strict=True):
                    torch.testing.assert_close(block, expected_block, rtol=1e-10, atol=1e-12)

"""Derivatives in forward mode: by ``torch.autograd.forward_ad``, by ``torch.func``, and over reverse mode."""

import dataclasses
from collections.abc import Callable

import elsa_ext
import pytest
import torch
from ops.backends import CPU, CUDA, TORCH, Backend
from ops.cases import Case, GhostHead, HadamardAttention, make
from ops.checks import call
from ops.test_autograd import BOTH, CASES, function_of, given
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

# PyTorch scripts its decompositions at the first call in forward mode, and warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*torch.jit.script. is (deprecated|not supported)")

# The rules are Python above the ops: emulated kernels would add nothing to them but minutes.
on_each = pytest.mark.parametrize("backend", [CPU, CUDA, TORCH], ids=lambda backend: backend.name, indirect=True)
EMPTY = [GhostHead(batch=0), HadamardAttention(batch=0), HadamardAttention(height=2, stride=3, dilation=2)]
NAMED = [(case, name) for case in BOTH for name in given(case)]


@on_each
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_mode(backend: Backend, case: Case) -> None:
    """Numerically, and for a batch of tangents by vmap; then the forward derivative of the reverse one."""
    function, leaves = function_of(case, make(case, device=backend.device), given(case))
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


@on_each
@pytest.mark.parametrize(("case", "name"), NAMED, ids=str)
def test_jacfwd_and_hessian_for_one_input_alone(backend: Backend, case: Case, name: str) -> None:
    function, leaves = function_of(case, make(case, device=backend.device), [name])
    value = leaves[0].detach()
    jacobian = torch.func.jacfwd(function)(value)
    torch.testing.assert_close(jacobian, torch.func.jacrev(function)(value), rtol=1e-11, atol=1e-12)

    def scalar(tensor: Tensor) -> Tensor:
        return function(tensor).sin().sum()

    hessian = torch.func.hessian(scalar)(value)
    expected = torch.autograd.functional.hessian(scalar, value)
    torch.testing.assert_close(hessian, expected, rtol=1e-10, atol=1e-12)


@on_each
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_forward_over_forward(backend: Backend, case: Case) -> None:
    """The Hessian from two derivatives in forward mode, which PyTorch gives as zeros for an autograd.Function."""
    function, leaves = function_of(case, make(case, device=backend.device), given(case)[:3])
    values = tuple(leaf.detach() for leaf in leaves)
    first, second = (tuple(map(torch.randn_like, values)) for _ in range(2))

    def scalar(*tensors: Tensor) -> Tensor:
        return function(*tensors).sin().sum()

    def slope(*tensors: Tensor) -> Tensor:
        return torch.func.jvp(scalar, tensors, first)[1]

    actual = torch.func.jvp(slope, values, second)[1]
    gradients = torch.func.jvp(torch.func.grad(scalar, argnums=(0, 1, 2)), values, second)[1]
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, first, strict=True))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def dual_call(call_op: Callable[..., Tensor], tensors: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Tensor:
    with forward_ad.dual_level():
        out = call_op(*map(forward_ad.make_dual, tensors, tangents))
        tangent = forward_ad.unpack_dual(out).tangent
    assert tangent is not None, "the tangent was lost"
    return tangent


@pytest.mark.parametrize("native", [CPU, CUDA], ids=lambda backend: backend.name, indirect=True)
@pytest.mark.parametrize("case", BOTH, ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_registered_op_keeps_tangents(native: Backend, case: Case, requires_grad: bool) -> None:
    """``torch.ops.elsa`` itself, as TorchScript and exported programs call it, with and without reverse mode."""
    tensors = make(case, device=native.device)
    function, leaves = function_of(case, tensors, given(case))
    values = tuple(leaf.detach().requires_grad_(requires_grad) for leaf in leaves)
    tangents = tuple(map(torch.randn_like, values))

    def registered(*chosen: Tensor) -> Tensor:
        arguments = {**tensors, **dict(zip(given(case), chosen, strict=True))}
        return getattr(torch.ops.elsa, case.op)(*arguments.values(), **case.options)

    expected = torch.func.jvp(function, tuple(v.detach() for v in values), tangents)[1]
    torch.testing.assert_close(dual_call(registered, values, tangents), expected, rtol=1e-12, atol=1e-13)


@on_each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tangent_has_the_dtype_of_the_result(backend: Backend, dtype: torch.dtype) -> None:
    case = GhostHead()
    tensors = make(case, dtype, backend.device, matrix_dtype=torch.float32)
    values = tuple(tensors.values())
    tangent = dual_call(lambda *args: elsa_ext.ghost_head(*args, **case.options), values, values)
    # The op is linear in value, and in attn and ghost_add together: along itself its derivative is known.
    expected = 2 * call(case, tensors).double() + call(case, {**tensors, "ghost_add": None}).double()
    assert tangent.dtype == dtype
    torch.testing.assert_close(
        tangent.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps * expected.abs().max()
    )


@on_each
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_tangent_of_an_empty_result(backend: Backend, case: Case) -> None:
    function, leaves = function_of(case, make(case, device=backend.device), given(case))
    values = tuple(leaf.detach() for leaf in leaves)
    out, tangent = torch.func.jvp(function, values, values)
    assert tangent.shape == out.shape == torch.Size(case.out_shape)


@on_each
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_hessian_in_every_order_of_modes(backend: Backend, case: Case) -> None:
    small = dataclasses.replace(case, batch=1, height=2, width=2)
    function, leaves = function_of(small, make(small, device=backend.device), given(small)[:2])
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

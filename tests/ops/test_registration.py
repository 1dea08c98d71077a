"""What the dispatcher knows of the ops: schemas, fake kernels, memory formats, autocast."""

from itertools import product
from typing import Any

import pytest
import torch
from ops.backends import Backend
from ops.cases import HALVES, LAYOUTS, Case, Shape, make, make_grad
from ops.checks import backward_arguments, call, evaluate, forward_arguments, registered, to_fake
from ops.registry import OPS, SMALL, every
from ops.spec import Op
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

LAYOUTS_IN_TURN = ("contiguous", "channel_slice", "channels_last")


def marks(op: Op, index: int, backward: bool) -> list[pytest.MarkDecorator]:
    """Of an opcheck, which takes seconds where the derivative of the backward is a formula of many parts."""
    if index == 0:
        return [] if op is OPS[0] else [pytest.mark.thorough]
    return [pytest.mark.slow if backward and op is not OPS[0] else pytest.mark.thorough]


OPCHECKED = [
    pytest.param(case, LAYOUTS_IN_TURN[index % 3], backward, marks=marks(op, index, backward))
    for op in OPS
    for index, case in enumerate([*op.options, op.empty[0]])
    for backward in (False, True)
]


def arguments(case: Case, backward: bool, device: str, layout: str) -> dict[str, Any]:
    """Every argument of the op of ``case``, its maps in ``layout``."""
    make_them = backward_arguments if backward else forward_arguments
    return make_them(case, dtype=torch.float32, device=device, layouts=case.laid_out(layout, "grad"))


def strides_like(tensor: Tensor, shape: Shape) -> tuple[int, ...]:
    """The strides that a result of ``shape`` has beside the input ``tensor``."""
    last = not tensor.is_contiguous() and tensor.stride(1) == 1
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, memory_format=memory_format, device="meta").stride()


def signature(results: Tensor | tuple[Tensor, ...]) -> list[tuple]:
    """What a fake kernel must foretell of every result."""
    results = (results,) if isinstance(results, Tensor) else results
    return [(tuple(r.shape), r.stride(), r.dtype, r.device.type, r.storage_offset()) for r in results]


# opcheck reads .grad of the copies that it makes of its arguments.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(("case", "layout", "backward"), OPCHECKED, ids=str)
def test_opcheck(hardware: Backend, case: Case, layout: str, backward: bool) -> None:
    given = {
        name: argument.requires_grad_() if isinstance(argument, Tensor) and argument.is_floating_point() else argument
        for name, argument in arguments(case, backward, hardware.device, layout).items()
    }
    torch.library.opcheck(registered(case, backward), (), given)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", every("edges"), ids=str)
def test_fake_kernel_foretells_the_result(native: Backend, case: Case, backward: bool) -> None:
    op = registered(case, backward)
    for layout in LAYOUTS:
        given = arguments(case, backward, native.device, layout)
        expected = signature(op(**given))
        with FakeTensorMode() as mode:
            assert signature(op(**to_fake(given, mode))) == expected, layout


@pytest.mark.parametrize("case", every("edges"), ids=str)
def test_result_has_the_memory_format_of_its_first_input(backend: Backend, case: Case) -> None:
    for layout in LAYOUTS:
        tensors = make(case, torch.float32, backend.device, layouts=case.laid_out(layout))
        expected = strides_like(next(iter(tensors.values())), case.out_shape)
        assert call(case, tensors).stride() == expected, layout


@pytest.mark.parametrize("case", [op.edges[0] for op in OPS], ids=str)
def test_gradients_have_the_memory_format_of_their_inputs(native: Backend, case: Case) -> None:
    for layouts in product(LAYOUTS, repeat=len(case.images)):
        given = backward_arguments(case, device=native.device, layouts=dict(zip(case.images, layouts, strict=True)))
        grads = dict(zip(case.shapes, registered(case, backward=True)(**given), strict=True))
        for name in case.images:
            assert grads[name].stride() == strides_like(given[name], tuple(given[name].shape)), (name, layouts)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_results_never_alias_inputs(native: Backend, case: Case, backward: bool) -> None:
    given = arguments(case, backward, native.device, "contiguous")
    inputs = {a.data_ptr() for a in given.values() if isinstance(a, Tensor)}
    results = registered(case, backward)(**given)
    results = (results,) if isinstance(results, Tensor) else results
    assert not inputs & {r.data_ptr() for r in results}
    assert len({r.data_ptr() for r in results}) == len(results)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_autocast_casts_all_but_matrices(unemulated: Backend, case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, torch.float32, unemulated.device)
    grad = make_grad(case, dtype, unemulated.device)
    cast = {name: t if name in case.matrices else t.to(dtype) for name, t in tensors.items()}
    expected = evaluate(case, cast, grad)
    with torch.autocast(unemulated.device, dtype):
        actual = evaluate(case, tensors, grad)
    assert actual["out"].dtype == dtype
    for name, result in actual.items():
        assert torch.equal(result, expected[name].to(result.dtype)), name
        assert name == "out" or result.dtype == torch.float32, name


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_autocast_takes_mixed_inputs(unemulated: Backend, case: Case) -> None:
    """What other layers hand over under autocast: some tensors are 16-bit already, parameters are not."""
    tensors = make(case, torch.float32, unemulated.device)
    first = next(iter(tensors))
    with torch.autocast(unemulated.device, torch.bfloat16):
        expected = call(case, tensors)
        actual = call(case, {**tensors, first: tensors[first].to(torch.bfloat16)})
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_autocast_leaves_float64_and_disabled_regions_alone(unemulated: Backend, case: Case) -> None:
    for dtype, enabled in ((torch.float64, True), (torch.float32, False)):
        tensors = make(case, dtype, unemulated.device)
        with torch.autocast(unemulated.device, torch.bfloat16, enabled=enabled):
            assert torch.equal(call(case, tensors), call(case, tensors))
            assert call(case, tensors).dtype == dtype


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_backward_outside_autocast(unemulated: Backend, case: Case) -> None:
    """The usual loop: forward under autocast, backward after it."""
    leaves = {name: t.requires_grad_() for name, t in make(case, torch.float32, unemulated.device).items()}
    with torch.autocast(unemulated.device, torch.bfloat16):
        loss = call(case, leaves).float().square().sum()
    loss.backward()
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == torch.float32 and leaf.grad.isfinite().all(), name

"""What the dispatcher knows of the ops: schemas, fake kernels, memory formats, autocast."""

import pytest
import torch
from ops.backends import Backend
from ops.cases import LAYOUTS, Case, GhostHead, HadamardAttention, Shape, channels_last, make, make_grad
from ops.checks import backward_arguments, call, evaluate, forward_arguments, to_fake
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

BOTH = [GhostHead(channels=8), HadamardAttention(channels=8)]
CASES = [
    *BOTH,
    GhostHead(mul="none", add="none", kernel_size=5),
    GhostHead(mul="sample", add="none", stride=2),
    GhostHead(channels=1, heads=1),
    GhostHead(channels=5, heads=5, kernel_size=1),
    GhostHead(height=1, width=1),
    GhostHead(height=1, width=9, stride=1),
    GhostHead(batch=1, height=3, width=2, stride=2),
    GhostHead(batch=0),
    GhostHead(height=2, stride=3),
    HadamardAttention(conv_bias=False, proj_bias=False, proj_rank=2, proj_groups=2),
    HadamardAttention(stride=2, kernel_size=5),
    HadamardAttention(channels=1, groups=1, heads=1, kernel_size=1),
    HadamardAttention(height=1, width=1),
    HadamardAttention(batch=0),
    HadamardAttention(height=2, stride=3),
]
OPCHECKED = [
    (CASES[0], "contiguous"),
    (CASES[0], "channel_slice"),
    (CASES[2], "channels_last"),
    (CASES[3], "contiguous"),
    (CASES[9], "contiguous"),
    (CASES[1], "channel_slice"),
    (CASES[11], "contiguous"),
    (CASES[12], "channels_last"),
]


def overload(case: Case, direction: str) -> torch._ops.OpOverload:
    """The registered op of ``case``."""
    return getattr(torch.ops.elsa, case.op if direction == "forward" else f"{case.op}_backward").default


def images(case: Case, layout: str) -> dict[str, str]:
    """The layouts that put every image of ``case`` and the gradient in ``layout``."""
    return dict.fromkeys([*channels_last(case), "grad"], layout)


def arguments(case: Case, direction: str, device: str, layout: str) -> dict:
    """Every argument of the op of ``case``, its images in ``layout``."""
    make_them = forward_arguments if direction == "forward" else backward_arguments
    return make_them(case, dtype=torch.float32, device=device, layouts=images(case, layout))


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
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("case", "layout"), OPCHECKED, ids=str)
def test_opcheck(native: Backend, case: Case, layout: str, direction: str) -> None:
    given = {
        name: argument.requires_grad_() if isinstance(argument, Tensor) and argument.is_floating_point() else argument
        for name, argument in arguments(case, direction, native.device, layout).items()
    }
    torch.library.opcheck(overload(case, direction), (), given)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fake_kernel_foretells_the_result(native: Backend, case: Case, layout: str, direction: str) -> None:
    op = overload(case, direction)
    given = arguments(case, direction, native.device, layout)
    expected = signature(op(**given))
    with FakeTensorMode() as mode:
        assert signature(op(**to_fake(given, mode))) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_has_the_memory_format_of_its_first_input(backend: Backend, case: Case, layout: str) -> None:
    tensors = make(case, torch.float32, backend.device, layouts=images(case, layout))
    out = call(case, tensors)
    assert out.stride() == strides_like(next(iter(tensors.values())), case.out_shape)


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_gradients_have_the_memory_format_of_their_inputs(native: Backend, case: Case, first: str, second: str) -> None:
    names = list(case.shapes)[:2]
    layouts = dict(zip(names, (first, second), strict=True))
    given = backward_arguments(case, device=native.device, layouts=layouts)
    for name, grad in zip(names, overload(case, "backward")(**given), strict=False):
        assert grad.stride() == strides_like(given[name], tuple(given[name].shape)), name


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_results_never_alias_inputs(native: Backend, case: Case, direction: str) -> None:
    given = arguments(case, direction, native.device, "contiguous")
    inputs = {a.data_ptr() for a in given.values() if isinstance(a, Tensor)}
    results = overload(case, direction)(**given)
    results = (results,) if isinstance(results, Tensor) else results
    assert not inputs & {r.data_ptr() for r in results}
    assert len({r.data_ptr() for r in results}) == len(results)


def test_schemas() -> None:
    tensors = "Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None"
    options = "int kernel_size, int dilation=1, int stride=1"
    needs = "bool need_value=True, bool need_attn=True, bool need_mul=True, bool need_add=True"
    expected = f"elsa::ghost_head({tensors}, *, {options}) -> Tensor"
    assert str(torch.ops.elsa.ghost_head.default._schema) == expected
    expected = f"elsa::ghost_head_backward(Tensor grad, {tensors}, *, {options}, {needs})"
    assert str(torch.ops.elsa.ghost_head_backward.default._schema).startswith(expected)
    parameters = "Tensor conv_weight, Tensor? conv_bias, Tensor proj_weight, Tensor? proj_bias"
    options = "int heads, float scale=1., int dilation=1, int stride=1, int proj_groups=1"
    expected = f"elsa::hadamard_attention(Tensor query, Tensor key, {parameters}, *, {options}) -> Tensor"
    assert str(torch.ops.elsa.hadamard_attention.default._schema) == expected


HALVES = [torch.bfloat16, torch.float16]
KEPT = ("ghost_mul", "ghost_add")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", BOTH, ids=str)
def test_autocast_casts_all_but_the_ghost_matrices(backend: Backend, case: Case, dtype: torch.dtype) -> None:
    tensors = make(case, torch.float32, backend.device)
    grad = make_grad(case, dtype, backend.device)
    cast = {name: t if name in KEPT else t.to(dtype) for name, t in tensors.items()}
    expected = evaluate(case, cast, grad)
    with torch.autocast(backend.device, dtype):
        actual = evaluate(case, tensors, grad)
    assert actual["out"].dtype == dtype
    for name, result in actual.items():
        assert torch.equal(result, expected[name].to(result.dtype)), name
        assert name == "out" or result.dtype == torch.float32, name


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_autocast_takes_mixed_inputs(backend: Backend, case: Case) -> None:
    """What other layers hand over under autocast: some tensors are 16-bit already, parameters are not."""
    tensors = make(case, torch.float32, backend.device)
    first = next(iter(tensors))
    with torch.autocast(backend.device, torch.bfloat16):
        expected = call(case, tensors)
        actual = call(case, {**tensors, first: tensors[first].to(torch.bfloat16)})
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_autocast_leaves_float64_and_disabled_regions_alone(backend: Backend, case: Case) -> None:
    for dtype, enabled in ((torch.float64, True), (torch.float32, False)):
        tensors = make(case, dtype, backend.device)
        with torch.autocast(backend.device, torch.bfloat16, enabled=enabled):
            assert torch.equal(call(case, tensors), call(case, tensors))
            assert call(case, tensors).dtype == dtype


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_backward_outside_autocast(backend: Backend, case: Case) -> None:
    """The usual loop: forward under autocast, backward after it."""
    leaves = {name: t.requires_grad_() for name, t in make(case, torch.float32, backend.device).items()}
    with torch.autocast(backend.device, torch.bfloat16):
        loss = call(case, leaves).float().square().sum()
    loss.backward()
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == torch.float32 and leaf.grad.isfinite().all(), name

"""ghost_head: its cases, for the tests that all ops share, and what it alone has."""

from dataclasses import replace

import elsa_ext
import golden
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from ops import ghost_head_cases, local_cases
from ops.backends import Backend
from ops.cases import HALVES, LAYOUTS, make, make_grad, numbers
from ops.checks import assert_close, call, check, check_conversions, evaluate, formula, oracle
from ops.ghost_head_cases import GhostHead
from ops.pairwise import pairwise
from ops.spec import Op
from torch.autograd import forward_ad

EVERYTHING = ("out", *GhostHead().shapes)
OP = Op(
    small=ghost_head_cases.SMALL,
    options=ghost_head_cases.OPTIONS,
    sizes=[*ghost_head_cases.SIZES, *ghost_head_cases.MATRICES, *ghost_head_cases.BORDERS],
    edges=ghost_head_cases.EDGES,
    empty=ghost_head_cases.EMPTY,
    kernels=ghost_head_cases.KERNELS,
    vectors=ghost_head_cases.VECTORS,
    laid_out=ghost_head_cases.LAID_OUT,
    compiled=ghost_head_cases.COMPILED,
    bad_calls=ghost_head_cases.BAD_CALLS,
    bad_backward_calls=ghost_head_cases.BAD_BACKWARD_CALLS,
    counts=ghost_head_cases.counts(),
    random=st.one_of(ghost_head_cases.random(), ghost_head_cases.random_bordered()),
    rounded_once={"cpu": EVERYTHING, "cuda": EVERYTHING, "emulated": EVERYTHING},
)


# CUDA devices have kernels on tensor cores for these. (With a tile for each of dilation² residues, most of
# them empty where the dilation is beyond the map: 8 is enough.)
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "dtype", "matrix_dtype"),
    [
        pytest.param(
            replace(case, mul="none", dilation=min(case.dilation, 4)),
            HALVES[index % 2],
            [None, torch.float32][index // 2 % 2],
            marks=[pytest.mark.slow] if numbers(case) > 16_000 else [],
        )
        for index, case in enumerate(ghost_head_cases.SIZES)
    ],
    ids=str,
)
def test_16_bit_maps_without_ghost_mul(
    native: Backend, case: GhostHead, dtype: torch.dtype, matrix_dtype: torch.dtype | None
) -> None:
    check(case, native.device, dtype, matrix_dtype, case.laid_out("channels_last"), EVERYTHING)


def test_gradients_of_float32_matrices_beside_16_bit_maps(backend: Backend) -> None:
    results = check(GhostHead(), backend.device, torch.bfloat16, torch.float32)
    assert {name for name, result in results.items() if result.dtype == torch.float32} == {"ghost_mul", "ghost_add"}


def test_float32_matrices_beyond_float16(native: Backend) -> None:
    case = GhostHead(batch=1, channels=8, heads=2, mul="none")
    tensors = make(case, torch.float16, native.device, torch.float32)
    grad = make_grad(case, torch.float16, native.device, "contiguous") / 1024
    tensors["value"] /= 1024
    for channel, factor in ((1, 65536.0), (4, 1e6), (6, 1e-3)):
        tensors["ghost_add"][channel] *= factor
    actual, plain, exact = (compare(case, tensors, grad) for compare in (evaluate, formula, oracle))
    for name in ("out", "value"):
        assert actual[name].isfinite().all()
        for channel in range(8):
            assert_close(name, *(results[name][:, channel] for results in (actual, plain, exact)))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_16_bit_number(backend: Backend, dtype: torch.dtype) -> None:
    check_conversions(dtype, backend.device)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_image_is_copied(native: Backend, layout: str) -> None:
    case = GhostHead(channels=36, heads=3)
    arguments = make(case, torch.float32, native.device, layouts=case.laid_out(layout))
    grad = make_grad(case, torch.float32, native.device, layout)
    call(case, arguments)
    with torch.profiler.profile(acc_events=True) as profile:
        call(case, arguments)
        torch.ops.elsa.ghost_head_backward(grad, **arguments, **case.options)
    called = {event.key for event in profile.key_averages()}
    assert "elsa::ghost_head" in called and "elsa::ghost_head_backward" in called
    assert not called & {"aten::clone", "aten::copy_"}


def test_schemas() -> None:
    tensors = "Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None"
    options = "int[2] kernel_size, int[2] dilation=1, int[2] stride=1"
    options += ', str border="zeros", int[2] window_stride=1, int[2] causal=0'
    needs = "bool need_value=True, bool need_attn=True, bool need_mul=True, bool need_add=True"
    expected = f"elsa::ghost_head({tensors}, *, {options}) -> Tensor"
    assert str(torch.ops.elsa.ghost_head.default._schema) == expected
    expected = f"elsa::ghost_head_backward(Tensor grad, {tensors}, *, {options}, {needs})"
    assert str(torch.ops.elsa.ghost_head_backward.default._schema).startswith(expected)


# PyTorch scripts its decompositions at the first call in forward mode, and warns of itself.
@pytest.mark.filterwarnings("ignore:(?s).*torch.jit.script. is (deprecated|not supported)")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tangent_has_the_dtype_of_the_result(unemulated: Backend, dtype: torch.dtype) -> None:
    case = GhostHead()
    tensors = make(case, dtype, unemulated.device, matrix_dtype=torch.float32)
    with forward_ad.dual_level():
        out = call(case, {name: forward_ad.make_dual(tensor, tensor) for name, tensor in tensors.items()})
        tangent = forward_ad.unpack_dual(out).tangent
    # The op is linear in value, and in attn and ghost_add together: along itself its derivative is known.
    expected = 2 * call(case, tensors).double() + call(case, {**tensors, "ghost_add": None}).double()
    assert tangent.dtype == dtype
    limit = 8 * torch.finfo(dtype).eps * expected.abs().max()
    torch.testing.assert_close(tangent.double(), expected, rtol=0, atol=float(limit))


@pytest.mark.parametrize(("kernel_size", "dilation", "stride"), pairwise([3, 5], [1, 3], [1, 2]))
def test_one_tap_per_head_shifts_its_channels(backend: Backend, kernel_size: int, dilation: int, stride: int) -> None:
    """Head h looks at tap (i, j) alone: its channels are the map shifted by that tap, zero outside."""
    heads, height, width = 3, 8, 7
    value = torch.randn(2, 6, height, width, dtype=torch.float64, device=backend.device)
    taps = [(0, kernel_size - 1), (kernel_size // 2, 0), (1, 2)]
    attn = value.new_zeros(2, heads, kernel_size, kernel_size, height // stride, width // stride)
    for head, (i, j) in enumerate(taps):
        attn[:, head, i, j] = 1
    out = elsa_ext.ghost_head(value, attn.flatten(1, 3), kernel_size=kernel_size, dilation=dilation, stride=stride)
    margin = kernel_size // 2 * dilation
    padded = F.pad(value, (margin,) * 4)
    for channel in range(6):
        i, j = taps[channel // 2]
        shifted = padded[:, channel, i * dilation :, j * dilation :][:, :height:stride, :width:stride]
        assert torch.equal(out[:, channel], shifted[:, : height // stride, : width // stride]), f"channel {channel}"


@pytest.mark.parametrize("border", ["circular", "shift"])
def test_a_border_is_a_map_without_one(backend: Backend, border: str) -> None:
    """Around a circle no pixel is special; and what lies inside is the same at every border."""
    value, attn = torch.randn(2, 4, 9, 11, dtype=torch.float64), torch.randn(2, 30, 9, 11, dtype=torch.float64)
    value, attn = value.to(backend.device), attn.to(backend.device)
    mul, options = torch.randn(4, 3, 5, dtype=torch.float64, device=backend.device), {"kernel_size": (3, 5)}
    out = elsa_ext.ghost_head(value, attn, mul, border=border, **options)
    inside = elsa_ext.ghost_head(value, attn, mul, **options)[:, :, 1:-1, 2:-2]
    torch.testing.assert_close(out[:, :, 1:-1, 2:-2], inside, rtol=1e-12, atol=1e-12)
    if border == "circular":
        turned = elsa_ext.ghost_head(
            value.roll((4, 7), (2, 3)), attn.roll((4, 7), (2, 3)), mul, border=border, **options
        )
        torch.testing.assert_close(turned, out.roll((4, 7), (2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", golden.cases("neighborhood"))
def test_agrees_with_golden_neighbourhoods(backend: Backend, case: golden.Case) -> None:
    names = ("kernel_size", "dilation", "border", "window_stride", "causal")
    options = {name: case.settings[name] for name in names}
    value, expected = local_cases.golden_arguments(case, backend.device).value, case.arrays
    attn = torch.from_numpy(expected["attn"]).to(backend.device).flatten(1, 2)
    out = elsa_ext.ghost_head(value, attn, **options)
    golden.assert_agrees("out", out.view(expected["out"].shape), expected["out"])
    out.backward(case.fill("grad", expected["out"].shape).to(backend.device).view_as(out))
    golden.assert_agrees("gradient of value", value.grad.view(expected["grad_value"].shape), expected["grad_value"])


@pytest.mark.parametrize("case", golden.cases("ghost_head"))
def test_agrees_with_the_official_code(backend: Backend, case: golden.Case) -> None:
    """The official layout has one sample per head: (B·heads, C/heads, …)."""
    given = case.settings
    batch, heads, channels, kernel_size = (given[key] for key in ("batch", "heads", "channels", "kernel_size"))
    height, width, stride, lam, gamma = (given[key] for key in ("height", "width", "stride", "lam", "gamma"))
    official = batch * heads, channels // heads
    value = case.fill("value", (*official, height, width)).view(batch, channels, height, width)
    grid = (height // stride, width // stride)
    attn = case.fill("attn", (batch * heads, kernel_size**2, *grid), 0, 1).view(batch, -1, *grid)
    mul = case.fill("ghost_mul", (channels, kernel_size, kernel_size), 0.25, 1.5)
    add = case.fill("ghost_add", (channels, kernel_size, kernel_size), -0.5, 0.5)
    leaves = [tensor.to(backend.device).requires_grad_() for tensor in (value, attn, mul, add)]
    options = {"kernel_size": kernel_size, "dilation": given["dilation"], "stride": stride}
    out = elsa_ext.ghost_head(*leaves[:2], leaves[2] ** lam, gamma * leaves[3], **options)
    golden.assert_agrees("out", out.view(*official, *grid), case.arrays["out"])
    out.backward(case.fill("grad", (*official, *grid)).to(backend.device).view_as(out))
    for name, leaf in zip(("value", "attn", "ghost_mul", "ghost_add"), leaves, strict=True):
        expected = case.arrays[f"grad_{name}"]
        golden.assert_agrees(f"gradient of {name}", leaf.grad.reshape(expected.shape), expected)

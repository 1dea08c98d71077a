"""ghost_head against the oracle: sizes, options, dtypes and memory layouts."""

from dataclasses import replace

import elsa_ext
import golden
import pytest
import torch
import torch.nn.functional as F
from ops.backends import Backend
from ops.cases import DTYPES, GRAD_LAYOUTS, LAYOUTS, GhostHead, channels_last, make, make_grad
from ops.checks import assert_rounded_once, check, check_conversions, evaluate, oracle

SIZES = [
    GhostHead(kernel_size=1),
    GhostHead(kernel_size=1, stride=2, heads=6),
    GhostHead(),
    GhostHead(channels=12, heads=3, kernel_size=5, height=7, width=9),
    GhostHead(channels=8, kernel_size=7, height=11, width=8),
    GhostHead(kernel_size=9, height=10, width=12),
    GhostHead(kernel_size=11, height=13, width=9),
    GhostHead(kernel_size=13, batch=1, height=15, width=14),
    GhostHead(kernel_size=5, dilation=2, height=9, width=10),
    GhostHead(kernel_size=3, dilation=3),
    GhostHead(kernel_size=7, dilation=3, height=13, width=12),
    GhostHead(kernel_size=7, dilation=50),
    GhostHead(stride=2),
    GhostHead(stride=3, height=10, width=11),
    GhostHead(kernel_size=7, stride=2, height=13, width=9),
    GhostHead(kernel_size=5, stride=2, dilation=2, height=9, width=12),
    GhostHead(kernel_size=5, stride=3, dilation=3, height=11, width=9),
    GhostHead(kernel_size=7, height=2, width=3),
    GhostHead(kernel_size=7, height=1, width=1),
    GhostHead(kernel_size=5, height=1, width=37),
    GhostHead(kernel_size=5, height=37, width=1),
    GhostHead(kernel_size=13, stride=2, height=3, width=2),
    GhostHead(channels=1, heads=1, width=13),
    GhostHead(channels=5, heads=1, kernel_size=5),
    GhostHead(channels=5, heads=5, width=16),
    GhostHead(channels=17, heads=1, width=17),
    GhostHead(channels=33, heads=3, width=5),
    GhostHead(channels=33, heads=33, kernel_size=5, width=9),
    GhostHead(channels=40, heads=5, width=19),
    GhostHead(channels=40, heads=1, kernel_size=7, width=11),
    GhostHead(channels=64, heads=2, kernel_size=7, batch=1, width=15),
    GhostHead(channels=96, heads=3, kernel_size=7, batch=1, height=14, width=14),
    GhostHead(channels=131, heads=1, width=4),
    GhostHead(batch=1, channels=33, heads=33, kernel_size=5, height=19, width=61),
    GhostHead(batch=2, channels=14, heads=2, kernel_size=7, dilation=3, height=21, width=59),
    GhostHead(batch=1, channels=40, heads=1, kernel_size=5, dilation=2, stride=2, height=37, width=63),
    GhostHead(batch=2, channels=96, heads=3, kernel_size=7, height=28, width=28),
    GhostHead(batch=1),
    GhostHead(batch=5, channels=8, heads=4, height=3, width=31),
]
MATRICES = [
    GhostHead(channels=20, heads=heads, kernel_size=kernel_size, width=9, stride=stride, mul=mul, add=add)
    for mul in ("none", "shared", "sample")
    for add in ("none", "shared", "sample")
    for heads, kernel_size, stride in ((2, 7, 1), (20, 3, 2))
]
EMPTY = [
    GhostHead(batch=0),
    GhostHead(batch=0, mul="sample", add="sample"),
    GhostHead(channels=0),
    GhostHead(height=2, stride=3),
    GhostHead(width=1, stride=2, kernel_size=7, mul="none"),
]


@pytest.mark.parametrize("images", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*SIZES, *MATRICES], ids=str)
def test_agrees_with_oracle(backend: Backend, case: GhostHead, dtype: torch.dtype, images: str) -> None:
    layouts = channels_last(case) if images == "channels_last" else {}
    check(case, backend.device, dtype, layouts=layouts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [replace(case, mul="none") for case in SIZES], ids=str)
def test_without_ghost_mul(backend: Backend, case: GhostHead, dtype: torch.dtype) -> None:
    check(case, backend.device, dtype, layouts=channels_last(case))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*MATRICES, GhostHead(channels=40, heads=5, kernel_size=7)], ids=str)
def test_float32_matrices_beside_16_bit(backend: Backend, case: GhostHead, dtype: torch.dtype) -> None:
    results = check(case, backend.device, dtype, torch.float32, channels_last(case))
    assert results["out"].dtype == results["value"].dtype == results["attn"].dtype == dtype
    for name in ("ghost_mul", "ghost_add"):
        assert name not in results or results[name].dtype == torch.float32


@pytest.mark.parametrize("matrix_dtype", [None, torch.float32], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*MATRICES, GhostHead(channels=40, heads=5, kernel_size=7, stride=2)], ids=str)
def test_16_bit_rounds_once(
    native: Backend, case: GhostHead, dtype: torch.dtype, matrix_dtype: torch.dtype | None
) -> None:
    tensors = make(case, dtype, native.device, matrix_dtype, channels_last(case))
    grad = make_grad(case, dtype, native.device)
    exact = oracle(case, tensors, grad)
    for name, result in evaluate(case, tensors, grad).items():
        assert_rounded_once(name, result, exact[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_16_bit_number(backend: Backend, dtype: torch.dtype) -> None:
    check_conversions(dtype, backend.device)


@pytest.mark.parametrize("dilation", [2**31, 2**33 + 1, 2**62])
def test_a_dilation_beyond_the_map_leaves_the_centre(backend: Backend, dilation: int) -> None:
    case = GhostHead(kernel_size=7, stride=2)
    tensors, grad = make(case, device=backend.device), make_grad(case, device=backend.device)
    expected = evaluate(replace(case, dilation=7), tensors, grad)
    for name, result in evaluate(replace(case, dilation=dilation), tensors, grad).items():
        assert torch.equal(result, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grad", GRAD_LAYOUTS)
@pytest.mark.parametrize("attn", LAYOUTS)
@pytest.mark.parametrize("value", LAYOUTS)
def test_layouts(backend: Backend, value: str, attn: str, grad: str, dtype: torch.dtype) -> None:
    case = GhostHead(channels=36, heads=3, height=5, width=6)
    check(case, backend.device, dtype, layouts={"value": value, "attn": attn, "grad": grad})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", [SIZES[4], SIZES[13], SIZES[28]], ids=str)
def test_layouts_of_larger_kernels(backend: Backend, case: GhostHead, layout: str) -> None:
    check(case, backend.device, torch.float32, layouts=dict.fromkeys(("value", "attn", "grad"), layout))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_empty_result(backend: Backend, case: GhostHead, dtype: torch.dtype) -> None:
    tensors = make(case, dtype, backend.device)
    results = evaluate(case, tensors, make_grad(case, dtype, backend.device))
    assert results["out"].shape == case.out_shape
    assert results["out"].dtype == dtype
    for name, tensor in tensors.items():
        if tensor is not None:
            assert torch.equal(results[name], torch.zeros_like(tensor)), f"gradient of {name}"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("kernel_size", [3, 5])
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

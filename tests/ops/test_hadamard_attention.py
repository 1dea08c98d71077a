"""hadamard_attention against the oracle: sizes, options, dtypes and memory layouts."""

from dataclasses import replace

import pytest
import torch
from ops.backends import Backend
from ops.cases import DTYPES, GRAD_LAYOUTS, LAYOUTS, HadamardAttention, channels_last, make, make_grad
from ops.checks import assert_rounded_once, call, check, evaluate, oracle

SIZES = [
    HadamardAttention(kernel_size=1),
    HadamardAttention(),
    HadamardAttention(kernel_size=5, height=7, width=9, groups=1),
    HadamardAttention(channels=8, kernel_size=7, height=11, width=8, groups=4),
    HadamardAttention(kernel_size=9, height=10, width=12, groups=6),
    HadamardAttention(kernel_size=11, batch=1, height=5, width=9),
    HadamardAttention(kernel_size=13, batch=1, height=6, width=7),
    HadamardAttention(kernel_size=5, dilation=2, height=9, width=10),
    HadamardAttention(kernel_size=3, dilation=3),
    HadamardAttention(kernel_size=7, dilation=50),
    HadamardAttention(stride=2),
    HadamardAttention(stride=3, height=10, width=11),
    HadamardAttention(kernel_size=5, stride=2, dilation=2, height=9, width=12),
    HadamardAttention(kernel_size=7, height=2, width=3),
    HadamardAttention(kernel_size=7, height=1, width=1),
    HadamardAttention(kernel_size=5, height=1, width=37),
    HadamardAttention(kernel_size=5, height=37, width=1),
    HadamardAttention(kernel_size=13, stride=2, height=3, width=2),
    HadamardAttention(channels=1, groups=1, heads=1),
    HadamardAttention(channels=5, groups=5, heads=5, kernel_size=5),
    HadamardAttention(channels=17, groups=17, heads=1),
    HadamardAttention(channels=33, groups=11, heads=3, proj_groups=3),
    HadamardAttention(channels=40, groups=10, heads=5, kernel_size=5, proj_groups=5),
    HadamardAttention(channels=96, groups=24, heads=3, kernel_size=7, batch=1, height=14, width=14),
    HadamardAttention(channels=40, groups=1, height=23, width=31),
    HadamardAttention(channels=48, groups=12, heads=4, kernel_size=7, height=9, width=30),
    HadamardAttention(batch=1, channels=130, groups=65, heads=1, height=10, width=29),
    HadamardAttention(batch=1, channels=64, groups=64, heads=2, height=33, width=33),
    # Groups of 2, 8, 16, 24 and 32 channels: by permutation, broadcast or neither, depending on the vector's width.
    HadamardAttention(batch=1, channels=24, groups=12, kernel_size=5, height=8, width=9),
    HadamardAttention(batch=1, channels=40, groups=5, kernel_size=7, height=8, width=9),
    HadamardAttention(batch=1, channels=48, groups=3, kernel_size=7, height=5, width=8),
    HadamardAttention(batch=1, channels=48, groups=2, kernel_size=3, height=5, width=8),
    HadamardAttention(batch=1, channels=96, groups=3, kernel_size=3, height=5, width=8),
    HadamardAttention(heads=7, proj_rank=2),
    HadamardAttention(heads=6, proj_groups=6),
    HadamardAttention(proj_groups=2, proj_rank=2, conv_bias=False),
    HadamardAttention(proj_bias=False),
    HadamardAttention(conv_bias=False, proj_bias=False, scale=-1.3),
    HadamardAttention(scale=0.0),
    HadamardAttention(batch=1, scale=8.0),
    HadamardAttention(batch=1, channels=36, groups=2, kernel_size=5, height=37, width=61, proj_groups=2),
    HadamardAttention(channels=51, groups=3, heads=3, dilation=2, stride=2, height=39, width=67),
]
# PyTorch's own bfloat16 gradient of the last one's conv_weight (channels_last, 17 channels a group) varies from run to
# run and reaches 1e30: it is no yardstick there.
SIZES_AND_DTYPES = [(case, dtype) for case in SIZES for dtype in DTYPES if (case, dtype) != (SIZES[-1], torch.bfloat16)]
EMPTY = [
    HadamardAttention(batch=0),
    HadamardAttention(batch=0, conv_bias=False, proj_bias=False),
    HadamardAttention(height=2, stride=3),
    HadamardAttention(width=1, stride=2, kernel_size=7),
]


@pytest.mark.parametrize("images", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("case", "dtype"), SIZES_AND_DTYPES, ids=str)
def test_agrees_with_oracle(backend: Backend, case: HadamardAttention, dtype: torch.dtype, images: str) -> None:
    layouts = channels_last(case) if images == "channels_last" else {}
    check(case, backend.device, dtype, layouts=layouts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [SIZES[3], SIZES[11], SIZES[21], SIZES[23], SIZES[-1]], ids=str)
def test_16_bit_rounds_once_on_the_cpu(case: HadamardAttention, dtype: torch.dtype) -> None:
    tensors = make(case, dtype, "cpu", layouts=channels_last(case))
    exact = oracle(case, tensors, make_grad(case, dtype, "cpu"))
    assert_rounded_once("out", call(case, tensors), exact["out"])


@pytest.mark.parametrize("dilation", [2**31, 2**33 + 1, 2**62])
def test_a_dilation_beyond_the_map_leaves_the_centre(backend: Backend, dilation: int) -> None:
    case = HadamardAttention(kernel_size=7, stride=2)
    tensors, grad = make(case, device=backend.device), make_grad(case, device=backend.device)
    expected = evaluate(replace(case, dilation=7), tensors, grad)
    for name, result in evaluate(replace(case, dilation=dilation), tensors, grad).items():
        torch.testing.assert_close(result, expected[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("key", LAYOUTS)
@pytest.mark.parametrize("query", LAYOUTS)
def test_layouts(backend: Backend, query: str, key: str, dtype: torch.dtype) -> None:
    check(HadamardAttention(channels=36, groups=9), backend.device, dtype, layouts={"query": query, "key": key})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("images", LAYOUTS)
@pytest.mark.parametrize("grad", GRAD_LAYOUTS)
def test_layouts_of_the_gradient(backend: Backend, grad: str, images: str, stride: int) -> None:
    case = HadamardAttention(kernel_size=5, height=7, width=8, stride=stride)
    check(case, backend.device, torch.float32, layouts={"query": images, "key": images, "grad": grad})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_empty_result(backend: Backend, case: HadamardAttention, dtype: torch.dtype) -> None:
    tensors = make(case, dtype, backend.device)
    results = evaluate(case, tensors, make_grad(case, dtype, backend.device))
    assert results["out"].shape == case.out_shape
    assert results["out"].dtype == dtype
    for name, tensor in tensors.items():
        if tensor is not None:
            assert torch.equal(results[name], torch.zeros_like(tensor)), f"gradient of {name}"


@pytest.mark.parametrize("case", [SIZES[1], SIZES[11], SIZES[21]], ids=str)
def test_every_head_sums_to_one(backend: Backend, case: HadamardAttention) -> None:
    attn = call(case, make(case, device=backend.device))
    total = attn.unflatten(1, (case.heads, -1)).sum(2)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_bias_alone_picks_its_tap(backend: Backend) -> None:
    """With no projection the bias decides: head 0 attends to its tap 4, head 1 to its tap 7 (row-major, head-major)."""
    case = HadamardAttention()
    tensors = make(case, device=backend.device)
    tensors["proj_weight"].zero_()
    tensors["proj_bias"].fill_(-1e4)
    tensors["proj_bias"][[4, 9 + 7]] = 1e4
    attn = call(case, tensors)
    expected = torch.zeros_like(attn)
    expected[:, [4, 9 + 7]] = 1
    assert torch.equal(attn, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_logits_do_not_overflow(backend: Backend, dtype: torch.dtype) -> None:
    case = HadamardAttention(kernel_size=5)
    tensors = make(case, dtype, backend.device)
    tensors["proj_bias"].mul_(2e4)
    results = evaluate(case, tensors, make_grad(case, dtype, backend.device))
    for name, result in results.items():
        assert result.isfinite().all(), name


def test_scale_and_stride_act_on_the_product(backend: Backend) -> None:
    """The product is pooled, not its factors: opposite signs in one pool cancel."""
    case = HadamardAttention(batch=1, channels=2, groups=1, heads=1, height=2, width=2, stride=2)
    tensors = make(case, device=backend.device)
    tensors["query"].copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensors["key"].copy_(torch.tensor([[12.0, -6.0], [4.0, -3.0]]))
    pooled = call(case, tensors)
    tensors["query"].zero_()
    assert torch.equal(pooled, call(case, tensors)), "the mean of 12, -12, 12, -12 is 0"


@pytest.mark.parametrize("name", ["conv_bias", "proj_bias"])
def test_a_missing_bias_is_zero(backend: Backend, name: str) -> None:
    case = HadamardAttention()
    tensors = make(case, device=backend.device)
    tensors[name].zero_()
    with_zeros = call(case, tensors)
    tensors[name] = None
    torch.testing.assert_close(call(case, tensors), with_zeros, rtol=1e-14, atol=0)

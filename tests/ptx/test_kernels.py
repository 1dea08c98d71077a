"""Every fast kernel as nvcc makes it: what it computes, and that no thread runs ahead of another or out of its tensors.

Shapes are small: a thread block or two, which have all kinds of pixels.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops.cases import Case
from ops.checks import check
from ops.ghost_head_cases import GhostHead
from ops.test_hadamard_attention import HadamardAttention
from ops.test_neighborhood_attention import NeighborhoodAttention
from ptx.launches import Ptx, interpreted

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ptx")]  # one process has to compile

NAMES = {torch.float32: "float", torch.bfloat16: "__nv_bfloat16", torch.float16: "__half"}
# Channels side by side, or elsewhere: kernels of their own.
LAYOUTS = ("channels_last", "contiguous")
every_type_and_layout = pytest.mark.parametrize(
    ("dtype", "layout"), [(dtype, layout) for dtype in NAMES for layout in LAYOUTS], ids=str
)
# What only `make ptx` runs: nvcc takes half a minute for a kernel size.
every_kernel_size = pytest.mark.parametrize(
    "size", [7, *(pytest.param(size, marks=pytest.mark.ptx) for size in (5, 9, 11, 13))]
)


def launched(
    ptx: Ptx, case: Case, dtype: torch.dtype, layout: str, wanted: Sequence[str] | None = None, **options: Any
) -> set[str]:
    """Compare a call and its gradients with the oracle, and return the kernels that ran."""
    with interpreted(ptx) as interpreter:
        check(case, "cpu", dtype, layouts=case.laid_out(layout, "grad"), wanted=wanted, **options)
    return {name for name, *_ in interpreter.launched}


def ghost_calls(size: int) -> list[tuple[GhostHead, list[str]]]:
    """Return calls, and the gradients that are wanted: for each of these the reductions have another kernel."""
    maps: dict[str, Any] = {"channels": 8, "batch": 1, "kernel_size": size, "height": 5, "width": 9}
    both, mul = GhostHead(**maps), GhostHead(**maps, add="none")
    add, neither = GhostHead(**maps, mul="none"), GhostHead(**maps, mul="none", add="none")
    wide = {**maps, "channels": 36, "heads": 1}  # two slices of channels
    everything = ["value", "attn", "ghost_mul", "ghost_add"]
    return [
        (both, everything),
        (mul, everything[:3]),
        (add, ["value", "attn", "ghost_add"]),
        (neither, ["value", "attn"]),
        (both, ["attn"]),
        (both, ["attn", "ghost_add"]),
        (both, ["ghost_mul"]),
        (both, ["ghost_mul", "ghost_add"]),
        (add, ["ghost_add"]),
        (GhostHead(**wide), everything),
        (GhostHead(**wide, mul="none"), ["value", "attn", "ghost_add"]),
    ]


@every_type_and_layout
def test_ghost_head(ptx: Ptx, dtype: torch.dtype, layout: str) -> None:
    ran = set()
    for case, wanted in ghost_calls(3):
        ran |= launched(ptx, case, dtype, layout, wanted)
    ours = f"Traits<{NAMES[dtype]}, 3, {str(layout == 'channels_last').lower()},"
    assert ran == {name for name in ptx.names("ghost_head/cuda/sized.cu", 3) if ours in name}


# The channels of a lane, of a strip and of a slice, tiles, dilations and borders of a map that a kernel can trip over.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        GhostHead(batch=2, channels=20, heads=1, height=18, width=17, mul="sample", add="sample"),
        GhostHead(batch=2, channels=12, heads=3, height=3, width=19, dilation=2, mul="none", add="sample"),
        GhostHead(batch=1, channels=33, heads=1, height=20, width=8, dilation=3, mul="none"),
        GhostHead(batch=1, channels=66, heads=2, height=1, width=1, mul="none", add="none"),
        GhostHead(batch=3, channels=7, heads=7, height=2, width=16, dilation=9),
    ],
    ids=str,
)
def test_ghost_head_of_other_sizes(ptx: Ptx, case: GhostHead, dtype: torch.dtype) -> None:
    for layout in (*LAYOUTS, "channel_slice", "cropped"):
        launched(ptx, case, dtype, layout)


@every_kernel_size
def test_ghost_head_of_other_kernels(ptx: Ptx, size: int) -> None:
    for index, (case, wanted) in enumerate(ghost_calls(size)):
        for dtype in (torch.float32, torch.bfloat16):
            launched(ptx, case, dtype, LAYOUTS[index % 2], wanted)


def test_float32_matrices_beside_16_bit_maps(ptx: Ptx) -> None:
    for mul in ("none", "shared"):
        case = GhostHead(batch=1, channels=8, mul=mul)
        launched(ptx, case, torch.float16, "channels_last", matrix_dtype=torch.float32)


@every_type_and_layout
def test_hadamard_attention(ptx: Ptx, dtype: torch.dtype, layout: str) -> None:
    ran = launched(ptx, HadamardAttention(batch=2, channels=40, groups=5, height=5, width=9), dtype, layout)
    ours = f"Traits<{NAMES[dtype]}, 3, {str(layout == 'channels_last').lower()}"
    names = ptx.names("hadamard_attention/cuda/sized.cu", 3)
    assert ran == {name for name in names if ours in name}


def test_a_copy_of_a_weight(ptx: Ptx) -> None:
    """The host code makes one of what is not contiguous."""
    layouts = {"conv_weight": "channels_last"}
    with interpreted(ptx):
        check(HadamardAttention(batch=1, channels=8), "cpu", torch.float32, layouts=layouts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        HadamardAttention(batch=1, channels=4, groups=1, height=1, width=1),
        HadamardAttention(batch=1, channels=8, groups=1, height=18, width=3, dilation=2, conv_bias=False),
        HadamardAttention(batch=3, channels=12, groups=3, height=3, width=31, dilation=5, heads=3, proj_groups=3),
    ],
    ids=str,
)
def test_hadamard_attention_of_other_sizes(ptx: Ptx, case: HadamardAttention, dtype: torch.dtype) -> None:
    for layout in (*LAYOUTS, "channel_slice", "cropped"):
        launched(ptx, case, dtype, layout)


@every_kernel_size
def test_hadamard_attention_of_other_kernels(ptx: Ptx, size: int) -> None:
    case = HadamardAttention(batch=1, channels=8, kernel_size=size, height=5, width=9)
    for dtype, layout in zip((torch.float32, torch.bfloat16), LAYOUTS, strict=True):
        launched(ptx, case, dtype, layout)


@pytest.mark.parametrize("dtype", [torch.float64, *NAMES], ids=str)
def test_softmax_of_any_kernel_size(ptx: Ptx, dtype: torch.dtype) -> None:
    case = HadamardAttention(batch=1, channels=6, kernel_size=15, height=4, width=6)
    ran = launched(ptx, case, dtype, "contiguous")
    ours = f"softmax_any_kernel<{NAMES.get(dtype, 'double')},"
    assert {name for name in ran if "softmax" in name} == {
        name for name in ptx.names("hadamard_attention/cuda/kernels.cu", 3) if ours in name
    }


PATCHES = [
    NeighborhoodAttention(batch=1, channels=32, heads=1, height=5, width=11, kernel_size=(3, 5), border="shift"),
    NeighborhoodAttention(batch=2, channels=16, heads=2, height=3, width=9, bias="tap"),
    NeighborhoodAttention(channels=10, heads=1, height=4, width=7, border="circular", dilation=(1, 2), wider=3),
    NeighborhoodAttention(
        batch=1, channels=6, heads=1, height=6, width=9, kernel_size=(3, 7), border="shift", window_stride=(2, 3),
        causal=(1, 0), bias="none",
    ),
    NeighborhoodAttention(
        batch=1, channels=40, heads=1, height=3, width=19, kernel_size=(3, 13), border="mask", wider=-8
    ),
    NeighborhoodAttention(batch=1, channels=8, heads=1, height=9, width=4, kernel_size=(5, 3), bias="tap sample"),
    # Of five rows two are odd: the second patch of these has no pixel.
    NeighborhoodAttention(batch=1, channels=8, heads=1, height=5, width=9, dilation=(2, 1)),
]  # fmt: skip


@every_type_and_layout
def test_neighborhood_attention(ptx: Ptx, dtype: torch.dtype, layout: str) -> None:
    ran = set()
    for case in PATCHES:
        ran |= launched(ptx, case, dtype, layout)
    names = ptx.names("neighborhood_attention/cuda/kernels.cu", 3)
    vector = str(layout == "channels_last").lower()
    assert {n for n in names if "patch_kernel" in n and f"<{NAMES[dtype]}, {vector}>" in n} <= ran

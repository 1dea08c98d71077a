"""What goes wrong in a kernel is found: the interpreter runs kernels from which something was taken, or in which it was
changed."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from ops.cases import Case
from ops.checks import check
from ops.ghost_head_cases import GhostHead
from ops.test_hadamard_attention import HadamardAttention
from ops.test_neighborhood_attention import NeighborhoodAttention
from ptx.launches import Ptx, interpreted
from ptx.memory import Fault
from ptx.program import Instruction, Kernel, instruction

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ptx")]  # one process has to compile

# Tiles of 8 × 14 and of 16 × 16 pixels. There are at most 8 thread blocks for all tiles of all heads, or 16 for all
# rows of all samples: here they take several tiles each.
GATHER = GhostHead(batch=1, channels=32, heads=8, height=9, width=15)
GATHER_PLANES = GhostHead(batch=1, channels=32, heads=8, height=3, width=18, mul="none")
REDUCE = GhostHead(batch=17, channels=8, heads=1, height=8, width=8)
REDUCE_ATTN = GhostHead(batch=17, channels=8, heads=1, height=8, width=8, mul="none", add="none")
REDUCE_PLANES = GhostHead(batch=17, channels=8, heads=1, height=1, width=3, mul="none")
# Two quads of input channels of a group.
CONV = HadamardAttention(batch=1, channels=8, groups=1, height=3, width=5)
# 18 runs of 32 pixels, and 16 partial sums of the projection's bias.
SOFTMAX = HadamardAttention(batch=1, channels=4, groups=1, height=24, width=24)
# Two slices of channels; and more groups of patches than thread blocks.
PATCHES = NeighborhoodAttention(batch=1, channels=40, heads=1, height=5, width=9)
MANY_PATCHES = NeighborhoodAttention(batch=1, channels=36, heads=1, height=136, width=1)
FLOAT, BFLOAT = torch.float32, torch.bfloat16
RACE = r"just written|may still have to read|was never written"


def run(ptx: Ptx, case: Case, dtype: torch.dtype, kernel: str, change: Callable[[Kernel], Kernel]) -> None:
    """Compare a call with the oracle, with a change to the kernels that have ``kernel`` in their mangled names."""
    changed = []

    def change_some(found: Kernel) -> Kernel:
        if kernel not in found.name:
            return found
        changed.append(found.name)
        return change(found)

    with interpreted(ptx.with_change(change_some)):
        check(case, "cpu", dtype, layouts=case.laid_out("channels_last", "grad"))
    pytest.fail(f"nothing was noticed, {changed} changed")


def places(kernel: Kernel, operation: str) -> list[int]:
    return [place for place, found in enumerate(kernel.instructions) if found.operation == operation]


def without(kernel: Kernel, operation: str, number: int) -> Kernel:
    """Leave out one of the instructions of a kind."""
    gone = places(kernel, operation)[number]
    instructions = [found for place, found in enumerate(kernel.instructions) if place != gone]
    labels = {label: place - (place > gone) for label, place in kernel.labels.items()}
    return replace(kernel, instructions=instructions, labels=labels)


def rewritten(kernel: Kernel, operation: str, number: int, change: Callable[[str], str]) -> Kernel:
    """Change the text of one of the instructions of a kind."""
    instructions: list[Instruction] = list(kernel.instructions)
    place = places(kernel, operation)[number]
    instructions[place] = instruction(change(instructions[place].text))
    assert instructions[place] != kernel.instructions[place]
    return replace(kernel, instructions=instructions)


@pytest.mark.parametrize(
    ("case", "dtype", "kernel", "operation", "numbers"),
    [
        (GATHER, FLOAT, "13gather_kernelINS0_12GatherTraitsIfLi3ELb1ELb1ELb1ELb0E", "bar.sync", [0, 1]),
        (GATHER_PLANES, BFLOAT, "18GatherPlanesTraitsI13__nv_bfloat16Li3ELb1ELb1ELb0E", "bar.sync", [0, 1, 2]),
        (REDUCE, FLOAT, "13reduce_kernel", "bar.sync", [0, 1]),
        # The last one is for kernels without ghost_mul, which have no barrier of the block.
        (REDUCE, FLOAT, "13reduce_kernel", "bar.warp.sync", [0, 1, 2, 3]),
        (REDUCE_ATTN, FLOAT, "13reduce_kernel", "bar.warp.sync", [0, 1]),
        (REDUCE_PLANES, BFLOAT, "20reduce_planes_kernel", "bar.sync", [0, 1]),
        (CONV, FLOAT, "11conv_kernelINS0_10ConvTraitsIfLi3ELb1ELNS0_8ConvStepE0E", "bar.sync", [0, 1]),
        (SOFTMAX, FLOAT, "14softmax_kernelINS0_13SoftmaxTraitsIfLi3ELb1ELb0E", "bar.warp.sync", [0, 1]),
        (SOFTMAX, FLOAT, "14softmax_kernelINS0_13SoftmaxTraitsIfLi3ELb1ELb1E", "bar.warp.sync", [0, 1, 2]),
        (PATCHES, BFLOAT, "12reach_kernel", "bar.sync", [0]),
        (PATCHES, BFLOAT, "20forward_patch_kernel", "bar.sync", [0]),
        # Those that are left out come before a copy to a panel. Since the panel was read others have been copied.
        (PATCHES, BFLOAT, "20forward_patch_kernel", "bar.warp.sync", [0, 1, 3]),
        (PATCHES, BFLOAT, "23statistics_patch_kernel", "bar.warp.sync", [0, 1, 2, 3]),
        (PATCHES, BFLOAT, "20outputs_patch_kernel", "bar.sync", [0, 1]),
        (MANY_PATCHES, BFLOAT, "20outputs_patch_kernel", "bar.warp.sync", [0]),
        (PATCHES, BFLOAT, "20outputs_patch_kernel", "bar.warp.sync", [1, 2, 3, 4, 6, 8]),
        (PATCHES, BFLOAT, "20sources_patch_kernel", "bar.warp.sync", [0, 1, 2, 3, 5, 7]),
    ],
    ids=lambda value: value.split("INS")[0] if isinstance(value, str) else None,
)  # fmt: skip
def test_no_barrier_may_be_missing(
    ptx: Ptx, case: Case, dtype: torch.dtype, kernel: str, operation: str, numbers: list[int]
) -> None:
    for number in numbers:
        with pytest.raises(Fault, match=RACE):
            run(ptx, case, dtype, kernel, lambda found, number=number: without(found, operation, number))


def test_gradient_of_attn_that_takes_its_place_too_early(ptx: Ptx) -> None:
    """The reduction with ``ghost_mul`` once had no barrier after the exchange that comes before the store."""
    with pytest.raises(Fault, match="overwrites what another thread may still have to read"):
        run(ptx, REDUCE, FLOAT, "13reduce_kernel", lambda found: without(found, "bar.warp.sync", 0))


@pytest.mark.parametrize("operation", ["ld.shared.v4.f32", "ld.global.v4.u32"])
def test_a_load_that_is_not_aligned(ptx: Ptx, operation: str) -> None:
    def moved(text: str) -> str:
        return re.sub(r"(\[%\w+)(\+\d+)?\]", lambda found: f"{found[1]}+{int(found[2] or 0) + 4}]", text)

    with pytest.raises(Fault, match="an access of 16 bytes is misaligned"):
        run(ptx, GATHER, FLOAT, "13gather_kernel", lambda found: rewritten(found, operation, 0, moved))


@pytest.mark.parametrize(
    ("case", "dtype", "kernel", "operation"),
    [
        # The rows of the map, counted from 0.
        (CONV, FLOAT, "11conv_kernelINS0_10ConvTraitsIfLi3ELb1ELNS0_8ConvStepE0E", "setp.ge.u32"),
        # The pixels of an axis.
        (PATCHES, BFLOAT, "12reach_kernel", "setp.ge.s32"),
    ],
)
def test_a_border_that_is_off_by_one(ptx: Ptx, case: Case, dtype: torch.dtype, kernel: str, operation: str) -> None:
    def changed(found: Kernel) -> Kernel:
        return rewritten(found, operation, 0, lambda text: text.replace(".ge.", ".gt."))

    with pytest.raises(Fault, match=r"no tensor is there|just written"):
        run(ptx, case, dtype, kernel, changed)


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        (GATHER_PLANES, "20gather_planes_kernel"),
        (REDUCE_PLANES, "20reduce_planes_kernel"),
        (PATCHES, "20forward_patch_kernel"),
    ],
    ids=str,
)
def test_a_fragment_in_the_wrong_place(ptx: Ptx, case: Case, kernel: str) -> None:
    """Two words of the left operand of a matrix product are swapped."""
    operation = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"

    def swapped(text: str) -> str:
        name, sums, left, *rest = text.split("{")
        first, second, third, fourth = left.split(",", 3)
        return "{".join([name, sums, ",".join([third, second, first, fourth]), *rest])

    with pytest.raises(AssertionError, match="error"):
        run(ptx, case, BFLOAT, kernel, lambda found: rewritten(found, operation, 0, swapped))

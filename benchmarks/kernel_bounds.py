"""Write a table of docs/kernels.md: what bounds the kernels as nvcc makes them, counted by the interpreter of PTX.

``ELSA_EMULATED_LIBRARY=… python benchmarks/kernel_bounds.py`` needs nvcc on PATH and the emulated kernels, which
`make ptx` builds, and no GPU. It interprets one sample of the first stage and multiplies by the batch.
"""

import sys
import tempfile
from pathlib import Path

import elsa_ext
import torch
from kernel_report import (
    BANDWIDTH,
    BATCH,
    DOCUMENT,
    KERNEL_SIZE,
    STAGES,
    TAPS,
    TENSOR_CORE_RATE,
    replace,
    table,
    work,
)

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from ptx.counts import Counts
from ptx.launches import Ptx, interpreted

# Of an H100 SXM in a second: cycles of all multiprocessors. In each, one issues four instructions of warps, shared
# memory takes one turn, and the L1 cache looks up one line.
CYCLES = 132 * 1.755e9
ISSUED = 4
# The multiply-adds of an mma.m16n8k16.
PRODUCTS = 16 * 8 * 16

# The kernels of a line of the table, by parts of their names; a pass of several has them all.
KERNELS = {
    "neighborhood_attention forward": ["forward_patch_kernel"],
    "neighborhood_attention backward: statistics": ["statistics_patch_kernel"],
    "neighborhood_attention backward: query, bias": ["outputs_patch_kernel"],
    "neighborhood_attention backward: key and value": ["sources_patch_kernel"],
    "ghost_head forward": ["GatherPlanesTraits<__nv_bfloat16, 7, true, true, false>"],
    "ghost_head backward": ["GatherPlanesTraits<__nv_bfloat16, 7, true, true, true>", "reduce_planes_kernel"],
    "hadamard_attention: convolution, GELU": ["ConvStep)0"],
    "hadamard_attention: softmax": ["SoftmaxTraits<__nv_bfloat16, 7, true, false>"],
    "hadamard_attention backward: softmax": ["SoftmaxTraits<__nv_bfloat16, 7, true, true>"],
    "hadamard_attention backward: convolution, GELU'": ["ConvStep)1"],
    "hadamard_attention backward: query and key": ["ConvStep)2"],
    "hadamard_attention backward: weights": ["weight_gradient_kernel"],
}


def call_ops() -> None:
    """Run the ops forwards and backwards on one sample of the first stage, without ghost_mul, as ELSA-Swin has it."""
    side, channels = STAGES[1]
    heads, narrow = channels // 32, channels // 3 * 2

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(torch.bfloat16)

    def image(count: int) -> torch.Tensor:
        return random(1, count, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()

    def backward(out: torch.Tensor) -> None:
        out.backward(torch.randn_like(out))

    add = random(channels, KERNEL_SIZE, KERNEL_SIZE).requires_grad_()
    backward(elsa_ext.ghost_head(image(channels), image(heads * TAPS), None, add, kernel_size=KERNEL_SIZE))
    weight = random(narrow, 4, KERNEL_SIZE, KERNEL_SIZE).requires_grad_()
    projection = random(heads * TAPS, narrow), random(heads * TAPS).requires_grad_()
    backward(
        elsa_ext.hadamard_attention(image(narrow), image(narrow), weight, random(narrow), *projection, heads=heads)
    )
    relative = random(heads, 2 * KERNEL_SIZE - 1, 2 * KERNEL_SIZE - 1).requires_grad_()
    maps = [image(channels) for _ in range(3)]
    backward(
        elsa_ext.neighborhood_attention(*maps, relative, heads=heads, kernel_size=[KERNEL_SIZE] * 2, border="shift")
    )


def bounds(counted: list[tuple[str, Counts]]) -> str:
    """Return the times below which no kernel can be, by what it asks of the multiprocessors and of memory."""
    rows = []
    moved = {name.partition(": ")[2]: moved for name, moved, *_ in work() if name.startswith("1: ")}
    for name, parts in KERNELS.items():
        counts = [count for kernel, count in counted if any(part in kernel for part in parts)]
        # Copies from register to register are gone when ptxas has chosen the registers.
        issued = sum(count.instructions.total() - count.instructions["copies"] for count in counts)
        products = sum(count.instructions["tensor cores"] for count in counts)
        times = [
            moved[name] / BANDWIDTH,
            BATCH * products * PRODUCTS / TENSOR_CORE_RATE,
            BATCH * issued / ISSUED / CYCLES,
            BATCH * sum(count.wavefronts for count in counts) / CYCLES,
            BATCH * sum(count.tags for count in counts) / CYCLES,
        ]
        rows.append([name, *(f"{1e6 * time:.0f}" for time in times), f"{1e6 * max(times):.0f}"])
    kinds = ["memory", "tensor cores", "issue slots", "shared memory", "lines of L1"]
    return table(["stage 1: kernel, µs of", *kinds, "bound, µs"], rows)


def main() -> None:
    """Fill in the table."""
    with tempfile.TemporaryDirectory() as folder, interpreted(Ptx(Path(folder)), counted=True) as interpreter:
        call_ops()
    counted = [(name, counts) for name, _, counts in interpreter.launched if counts is not None]
    DOCUMENT.write_text(replace(DOCUMENT.read_text(), "bounds", bounds(counted)))


if __name__ == "__main__":
    main()

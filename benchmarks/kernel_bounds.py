"""Write a table of docs/kernels.md: what bounds the kernels as nvcc makes them, counted by the interpreter of PTX.

``ELSA_EMULATED_LIBRARY=… python benchmarks/kernel_bounds.py`` needs nvcc on PATH and the emulated kernels, which
`make ptx` builds, and no GPU. It interprets one sample of the first stage and multiplies by the batch.
"""

import sys
import tempfile
from pathlib import Path

from kernel_calls import KERNELS, call_ops
from kernel_report import BATCH, DOCUMENT, TENSOR_CORE_RATE, memory_time, replace, table, work

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from ptx.counts import Counts
from ptx.launches import Ptx, interpreted

# Of an H100 SXM in a second: cycles of all multiprocessors. In each, one issues four instructions of warps, shared
# memory takes one turn, and the L1 cache looks up one line.
CYCLES = 132 * 1.755e9
ISSUED = 4
# The multiply-adds of an mma.m16n8k16.
PRODUCTS = 16 * 8 * 16


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
            memory_time(moved[name]),
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
        call_ops(1, batch=1)
    counted = [(name, counts) for name, _, counts in interpreter.launched if counts is not None]
    DOCUMENT.write_text(replace(DOCUMENT.read_text(), "bounds", bounds(counted)))


if __name__ == "__main__":
    main()

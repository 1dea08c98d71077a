"""Time every kernel of ELSA's ops on a GPU by PyTorch's profiler, and write the times beside the floors.

``python benchmarks/kernel_times.py FILE`` writes a Markdown table: for each stage of ELSA-Swin-T, forwards and
backwards, batch 128, under autocast to bfloat16. The floors are those of an H100 (docs/kernels.md).
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
from kernel_calls import KERNELS, call_ops
from kernel_report import BATCH, STAGES, floor, table, work
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WARM_UP, CALLS = 2, 5
SHOWN = 8  # of the other kernels


def measured(stage: int) -> list[tuple[str, float]]:
    """Return name and mean time in a call, in µs, of every kernel that ran."""
    with torch.autocast("cuda", torch.bfloat16):
        for _ in range(WARM_UP):
            call_ops(stage, BATCH, "cuda", torch.float32)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(CALLS):
                call_ops(stage, BATCH, "cuda", torch.float32)
            torch.cuda.synchronize()
    events = profiler.key_averages()
    return [(e.key, e.self_device_time_total / CALLS) for e in events if e.device_type == DeviceType.CUDA]


def lines(stage: int, times: Iterable[tuple[str, float]]) -> list[list[str]]:
    """Return the lines of a stage: kernel, floor, time, and how many times the floor that is.

    What no line names, such as the projections, which are PyTorch's, comes last.
    """
    least = {name.partition(": ")[2]: floor(*needs) for name, *needs in work() if name.startswith(f"{stage}: ")}
    rest = dict(times)
    rows = []
    for name, parts in KERNELS.items():
        ours = [kernel for kernel in rest if any(part in kernel for part in parts)]
        time, needed = sum(rest.pop(kernel) for kernel in ours), 1e6 * least[name]
        rows.append([f"{stage}: {name}", f"{needed:.0f}", f"{time:.0f}" if ours else "did not run"])
        rows[-1].append(f"{time / needed:.2f}" if ours else "")
    for name, time in sorted(rest.items(), key=lambda item: -item[1])[:SHOWN]:
        rows.append([f"{stage}: other: {name[:60].replace('|', ' ')}", "", f"{time:.0f}", ""])
    return rows


def main() -> None:
    """Measure all stages, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where the table is written")
    file = parser.parse_args().file
    rows = [line for stage in STAGES for line in lines(stage, measured(stage))]
    text = table(["stage: kernel", "floor, µs", "measured, µs", "ratio"], rows)
    file.write_text(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, mean of {CALLS} calls\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    main()

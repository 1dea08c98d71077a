"""The course of ``elsa-ext bench``: check, measure, show, write, compare."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from ..._library import CUDA_STATUS
from ..._torch_private import has_kernel
from ..device import find_device
from ..errors import CommandError
from ..files import check_writable
from .compare import Earlier
from .contenders import Comparison
from .measure import Floors, forget_compiled, measure, reason
from .report import head, table
from .results import Record, machine, new_run, summarise, write

BAR = "{desc}|{bar}| {percentage:.0f} % [{elapsed}{postfix}]"
OPTIONS = ("repeats", "backprop", "baselines")


def run(args: argparse.Namespace) -> int:
    """Measure as ``args`` say; return 1 if ``--compare`` finds a row of ours slower than it was."""
    outputs = {flag: Path(path) for flag in ("json", "plot") if (path := getattr(args, flag)) is not None}
    for flag, path in outputs.items():
        check_output(f"--{flag}", path)
    if len({os.path.realpath(path) for path in outputs.values()}) < len(outputs):
        raise CommandError(f"--json and --plot are the same file, {outputs['json']}")
    earlier = None if args.compare is None else Earlier(Path(args.compare), args.kind)
    device = find_device(args.device)
    check_kernels(device)
    torch.manual_seed(0)
    with number_of_threads(args.threads):
        comparisons = importlib.import_module(f".{args.comparisons}", __package__).comparisons(args, device)
        if earlier:
            earlier.check(comparisons, device)
        measured = measure_all(args, comparisons, device, outputs.get("json"))
    if "plot" in outputs:
        from .plot import draw

        draw(outputs["plot"], measured)
    if not earlier:
        return 0
    lines, code = earlier.report(measured, args.tolerance)
    print("\n".join(lines))
    return code


def check_output(flag: str, path: Path) -> None:
    """Raise a ``CommandError`` if a file cannot be written, before there is anything to lose."""
    if path.is_dir():
        raise CommandError(f"{flag} {path} is a folder")
    folder = path.parent
    if not folder.is_dir():
        raise CommandError(f"{flag} {path}: no such folder: {folder}")
    check_writable(path)


def check_kernels(device: torch.device) -> None:
    """Raise a ``CommandError`` if our ops have no kernel for the device: their formula would be timed as ours."""
    if not has_kernel("elsa::ghost_head", device.type):
        reason = CUDA_STATUS if device.type == "cuda" else "elsa_ext has kernels for cpu and cuda"
        raise CommandError(f"--device {device} cannot be measured: {reason}")


@contextlib.contextmanager
def number_of_threads(count: int | None) -> Iterator[None]:
    """Let torch work with ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_all(
    args: argparse.Namespace, comparisons: list[Comparison], device: torch.device, json: Path | None
) -> Record:
    """Measure one comparison after the other, and return the record of all; show and write each when it is done."""
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    run = new_run(args.kind, machine(device), {name: getattr(args, name) for name in OPTIONS})
    floors = Floors(device, args.dtype)
    run["floors"] = floors.rates([floors.sample() for _ in range(5)])
    print("\n".join(head(run)))
    with tqdm(disable=None, leave=False, file=sys.stderr, total=1, bar_format=BAR) as bar:
        for number, comparison in enumerate(comparisons, 1):
            bar.reset(1)
            bar.set_postfix_str(f"table {number} of {len(comparisons)}", refresh=False)
            try:
                measured = measure(comparison, args.repeats, floors, bar)
            except RuntimeError as error:  # its tensors do not fit into memory
                raise CommandError(f"{comparison.label}: {reason(error)}") from error
            record = summarise(measured)
            run["comparisons"].append(record)
            if json:
                write(json, run)
            tqdm.write("\n".join(["", *table(record)]))
            forget_compiled()  # other sizes in the next comparison would make them dynamic ones
    return run

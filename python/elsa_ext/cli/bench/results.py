"""What a run leaves: rows of numbers, and the file that holds them."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import elsa_ext

from ..errors import CommandError
from ..files import write_whole
from ..info.command import cpu_model
from .contenders import OURS
from .measure import Entrant, Measured

FORMAT = 1
Record = dict[str, Any]


def machine(device: torch.device) -> Record:
    """Return what the numbers depend on beside the code."""
    build = elsa_ext.build_info()
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": build["cpu_capability"],
        "os": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "elsa_ext": elsa_ext.__version__,
        "compiler": build["compiler"],
    }


def new_run(kind: str, here: Record, options: Record) -> Record:
    """Return the record of a run that has measured nothing yet."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"format": FORMAT, "bench": kind, "date": date, "machine": here, "options": options, "comparisons": []}


def summarise(measured: Measured) -> Record:
    """Return the record of a comparison; of contenders with one key it holds the fastest."""
    comparison, floors = measured.comparison, measured.floors
    rows = [row(entrant, floors, comparison.images) for entrant in measured.entrants]
    fastest: dict[tuple[str, str], Record] = {}
    for found in sorted(rows, key=lambda found: found["median_ms"]):
        fastest.setdefault((found["contender"], found["direction"]), found)
    kept = [found for found in rows if fastest[found["contender"], found["direction"]] is found]
    for found in kept:
        found["ratio"] = found["median_ms"] / fastest[OURS, found["direction"]]["median_ms"]
    kept.sort(key=lambda found: comparison.directions.index(found["direction"]))
    return {
        "label": comparison.label,
        "title": comparison.title,
        "problem": comparison.problem,
        "floors": floors,
        "rows": kept,
        "absent": [asdict(absent) for absent in measured.absent],
    }


def row(entrant: Entrant, floors: Record, images: int | None) -> Record:
    """Return what is known of one contender in one direction."""
    first, median, third = quartiles(entrant.samples)
    task = entrant.task
    floor = max(task.multiply_adds / floors["gfma_per_s"], task.bytes / floors["gb_per_s"]) / 1e9
    return {
        "contender": entrant.contender.key,
        "name": entrant.contender.name,
        "ours": entrant.contender.key == OURS,
        "direction": entrant.direction,
        "rounds": len(entrant.samples),
        "median_ms": 1e3 * median,
        "q1_ms": 1e3 * first,
        "q3_ms": 1e3 * third,
        "iqr_ms": 1e3 * (third - first),
        "samples_ms": [round(1e3 * sample, 6) for sample in entrant.samples],
        "multiply_adds": task.multiply_adds,
        "bytes": task.bytes,
        "gfma_per_s": task.multiply_adds / median / 1e9,
        "gb_per_s": task.bytes / median / 1e9,
        "floor_ms": 1e3 * floor,
        "percent_of_floor": 100 * floor / median,
        "peak_bytes": entrant.memory.peak,
        "extra_bytes": entrant.memory.extra,
        "images_per_s": None if images is None else images / median,
    }


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, median, third


def write(path: Path, run: Record) -> None:
    """Write the record of a run as JSON."""
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.writelines([text.encode()]))


def read(path: Path, kind: str) -> Record:
    """Return the record in a file.

    Raises:
        CommandError: There is no such file, it is something else, or the record of another kind of run.
    """
    try:
        run = json.loads(path.read_text())
    except FileNotFoundError:
        raise CommandError(f"no such file: {path}") from None
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # not JSON, or not even text
        raise CommandError(f"{path} is not JSON: {error}") from error
    if not isinstance(run, dict) or run.get("format") != FORMAT or "bench" not in run:
        raise CommandError(f"{path} was not written by this version of elsa-ext bench --json")
    if run["bench"] != kind:
        raise CommandError(f"{path} is of elsa-ext bench {run['bench']}, this is elsa-ext bench {kind}")
    return run

"""``--compare``: the times of a run over those of an earlier one."""

import json
from pathlib import Path
from typing import Any

import torch

from ..errors import CommandError
from .contenders import Comparison
from .report import aligned, milliseconds
from .results import Record, read

Key = tuple[str, str, str]


class Earlier:
    """The rows of an earlier run, by problem, contender and direction."""

    def __init__(self, path: Path, kind: str) -> None:
        """Read them.

        Raises:
            CommandError: The file is not the record of such a run.
        """
        self.path, self.run = path, read(path, kind)
        try:
            self.machine = {"device": "?", **self.run["machine"]}
            self.rows = keyed(self.run)
            self.problems = {problem_key(comparison["problem"]) for comparison in self.run["comparisons"]}
            for row in self.rows.values():
                assert row["median_ms"] > 0 and isinstance(row["percent_of_floor"], float)
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise CommandError(f"{path} is damaged: its rows are not those of elsa-ext bench --json") from error

    def check(self, comparisons: list[Comparison], device: torch.device) -> None:
        """Raise a ``CommandError`` if it is of another device, or has none of the problems that are to be measured."""
        if self.machine["device"] != device.type:
            raise CommandError(f"{self.path} was measured on {self.machine['device']}, this run is on {device.type}")
        if self.problems.isdisjoint(problem_key(comparison.problem) for comparison in comparisons):
            raise CommandError(f"{self.path} has no row of the problems that are to be measured")

    def report(self, run: Record, tolerance: float) -> tuple[list[str], int]:
        """Return the table of what both have, and the exit code: 1 if ours is slower by more than ``tolerance`` %.

        Raises:
            CommandError: They have no row in common.
        """
        rows = keyed(run)
        common = [key for key in rows if key in self.rows]
        if not common:
            raise CommandError(f"{self.path} has no row in common with this run")
        cells = [["", "direction", "old ms", "new ms", "new/old", "old floor", "new floor"]]
        slower = []
        labels = {problem_key(found["problem"]): found["label"] for found in run["comparisons"]}
        label = None
        for key in common:
            old, new = self.rows[key], rows[key]
            if labels[key[0]] != label:
                label = labels[key[0]]
                cells.append([label])
            ratio = new["median_ms"] / old["median_ms"]
            worse = new["ours"] and ratio > 1 + tolerance / 100
            cells.append(
                [
                    f"  {new['name']}",
                    new["direction"],
                    milliseconds(old["median_ms"]),
                    milliseconds(new["median_ms"]),
                    f"{ratio:.3f}{' !' if worse else '  '}",
                    f"{old['percent_of_floor']:.1f} %",
                    f"{new['percent_of_floor']:.1f} %",
                ]
            )
            slower += [f"{label}, {new['direction']}: {ratio:.3f} x"] * worse
        lines = ["", f"against {self.path} of {self.run.get('date')}", *aligned(cells, left=2)]
        lines += [f"note: {what} was {old}, is {new}" for what, old, new in self.differences(run["machine"])]
        if slower:
            return [*lines, f"slower by more than {tolerance:g} %: {'; '.join(slower)}"], 1
        return [*lines, f"nothing of ours is slower by more than {tolerance:g} %"], 0

    def differences(self, here: Record) -> list[tuple[str, Any, Any]]:
        """Return what else than elsa_ext is another one than it was."""
        names = ("gpu", "cpu", "threads", "cpu_capability", "torch")
        return [(name, self.machine.get(name), here[name]) for name in names if self.machine.get(name) != here[name]]


def problem_key(problem: Record) -> str:
    """Return what identifies a problem, without its name."""
    return json.dumps({name: value for name, value in problem.items() if name != "name"}, sort_keys=True)


def keyed(run: Record) -> dict[Key, Record]:
    """Return all rows of a run."""
    return {
        (problem_key(comparison["problem"]), row["contender"], row["direction"]): row
        for comparison in run["comparisons"]
        for row in comparison["rows"]
    }

"""How the results of ``elsa-ext compare`` are shown: a table, a file of them, and a picture."""

import csv
import io
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..picture import plain_style, save_picture
from ..text import printable


@dataclass
class Result:
    """What came of one operator."""

    spec: str
    accuracies: list[float]
    """On the test images after the last epoch, one for each seed."""
    parameters: int
    multiply_adds: int
    """Of one image."""
    training_images_per_second: float
    inference_images_per_second: float

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the accuracy over the seeds; None of one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def shown(self) -> str:
        """Mean and deviation in percent."""
        spread = "" if self.deviation is None else f" ± {self.deviation * 100:.2f}"
        return f"{self.mean * 100:.2f}{spread}"

    def fields(self) -> dict[str, Any]:
        """Return everything by name."""
        first = {"spec": self.spec, "mean_accuracy": self.mean, "standard_deviation": self.deviation}
        return {**first, **{name: value for name, value in vars(self).items() if name != "spec"}}


HEADERS = ("spec", "accuracy, %", "parameters", "multiply-adds, M", "training images/s", "inference images/s")


def table(results: Sequence[Result]) -> str:
    """Return the lines of the table."""
    rows = [HEADERS] + [
        (
            result.spec,
            result.shown,
            f"{result.parameters:,}",
            f"{result.multiply_adds / 1e6:,.2f}",
            f"{result.training_images_per_second:,.0f}",
            f"{result.inference_images_per_second:,.0f}",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    seeds = len(results[0].accuracies)
    spread = f", ± standard deviation over {seeds} seeds" if seeds > 1 else "; one seed has no spread"
    return "\n".join([*lines, f"accuracy on the test images after the last epoch{spread}"])


def write_csv(results: Sequence[Result]) -> str:
    """Return the text of ``results.csv``: a row for each operator, the accuracies of the seeds in one column."""
    text = io.StringIO()
    rows = [{**result.fields(), "accuracies": " ".join(map(str, result.accuracies))} for result in results]
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw(path: Path, title: str, results: Sequence[Result]) -> None:
    """Draw the accuracies: the mean with one standard deviation to both sides, and a line below for each seed."""
    with plain_style():
        save_picture(path, dots(title, results))


def dots(title: str, results: Sequence[Result]) -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(9, 1.5 + 0.36 * len(results)), dpi=130, layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(results):
        axes.plot(result.accuracies, [place + 0.22] * len(result.accuracies), "|", color="#456a8c")
        axes.errorbar(result.mean, place, xerr=result.deviation, fmt="o", color="#b35c00", markersize=5, capsize=4)
        axes.annotate(
            result.shown, (1, place), (6, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(results)), [printable(result.spec) for result in results], fontsize=9)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    what = "mean and standard deviation over the seeds" if results[0].deviation is not None else "of one seed"
    axes.set_xlabel(f"test accuracy after the last epoch: {what}", fontsize=9)
    figure.suptitle("\n".join(textwrap.wrap(printable(title), 90)), fontsize=11)
    return figure

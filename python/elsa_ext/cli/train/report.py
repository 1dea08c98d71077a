"""How a training run is shown: the table on the terminal and ``curves.png``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..picture import plain_style, save_picture
from ..text import printable


@dataclass
class Metrics:
    """One epoch: mean loss and share of right answers on both sets, the time that it took, and how it was learnt."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    learning_rate: float = 0.0
    """Of the last step."""
    images_per_second: float = 0.0
    """Of the training alone."""


HEADER = "epoch  train loss  train acc  test loss  test acc  seconds"


def table_row(row: Metrics) -> str:
    """Return the line under ``HEADER``."""
    return (
        f"{row.epoch:5d}  {row.train_loss:10.4f}  {row.train_accuracy:9.2%}  {row.test_loss:9.4f}  "
        f"{row.test_accuracy:8.2%}  {row.seconds:7.1f}"
    )


def draw_curves(path: Path, title: str, rows: Sequence[Metrics]) -> None:
    """Draw loss and accuracy of both sets over the epochs."""
    with plain_style():
        figure = curves(rows)
        figure.suptitle(printable(title))
        save_picture(path, figure)


def curves(rows: Sequence[Metrics]) -> Figure:
    """Return a figure with one panel for the loss and one for the accuracy."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    epochs = [row.epoch for row in rows]
    loss, accuracy = figure.subplots(1, 2)
    for axes, what, style in ((loss, "loss", ".4f"), (accuracy, "accuracy", ".2%")):
        for split in ("train", "test"):
            values = [getattr(row, f"{split}_{what}") for row in rows]
            axes.plot(epochs, values, marker=".", clip_on=False, label=f"{split}, {values[-1]:{style}} at the end")
        axes.set(xlabel="epoch", ylabel=what, xlim=(0.5, len(rows) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)  # above what it explains
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(0, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    return figure

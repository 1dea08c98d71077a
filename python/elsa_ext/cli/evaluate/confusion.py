"""The confusion matrix as a picture."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from ..picture import plain_style, save_picture
from ..text import printable

MOST_NAMES = 50
"""Along one axis; of more classes every second, third, … is named."""
MOST_NUMBERS = 20
"""Classes up to which every field has its number."""
LONGEST_NAME = 24


def draw_confusion(path: Path, title: str, classes: Sequence[str], counts: Tensor) -> None:
    """Draw how many images of each class, in the rows, were given each class, in the columns."""
    with plain_style():
        save_picture(path, picture(title, classes, counts.numpy()))


def picture(title: str, classes: Sequence[str], counts: np.ndarray) -> Figure:
    """Return a figure of the counts, coloured by their shares of the row."""
    side = min(12.0, 3.6 + 0.32 * len(classes))
    figure = Figure(figsize=(side + 1.6, side + 0.6), dpi=120, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(printable(title), int(11 * side))), fontsize=11)
    axes = figure.subplots()
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    axes.set_facecolor("lightgrey")  # rows without an image
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    name_classes(axes, [shortened(printable(name)) for name in classes], side)
    if len(classes) <= MOST_NUMBERS:
        add_numbers(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1))
    bar.set_label("share of the images of the class")
    return figure


def name_classes(axes: Axes, names: Sequence[str], side: float) -> None:
    """Write the names of the classes along both axes of so many inches, as many as can be read."""
    step = math.ceil(len(names) / MOST_NAMES)
    size = 9 if len(names) <= 30 else 7
    shown = range(0, len(names), step)
    long = len(shown) * (max(map(len, names)) + 1) > 6 * side
    axes.set_xticks(shown, names[::step], rotation=90 if long else 0, fontsize=size)
    axes.set_yticks(shown, names[::step], fontsize=size)
    some = f" (one of {step} is named)" if step > 1 else ""
    axes.set_xlabel(f"class given by the model{some}")
    axes.set_ylabel(f"class{some}")


def add_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """Write every count that is not zero into its field."""
    size = 9 if counts.max() < 1000 and len(counts) <= 12 else 7
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)


def shortened(name: str) -> str:
    """Return a name with its middle left out if it is too long."""
    if len(name) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2
    return f"{name[:half]}…{name[-half + 1 :]}"

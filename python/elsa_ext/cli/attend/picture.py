"""The picture of ``elsa-ext attend``."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..picture import plain_style, save_picture
from ..text import printable
from .scene import Scene, Sight, times

# Inches.
LEFT, RIGHT, GAP, LINE = 1.15, 1.1, 0.07, 0.18
NARROWEST = 7.4  # figure, for the title
SMALLEST, LARGEST = 0.8, 2.0  # panel
ACROSS = 13.0  # what panels become smaller to fit in
MOST_ACROSS = 12  # heads side by side

COVER = 0.75  # opacity of weights over the picture
PALE = 0.4  # how dark that is under them
PIXEL, LOOKED_AT = "#0050ff", "#ff00c8"  # magenta, which few pictures have


class Tap(NamedTuple):
    """What is drawn of a tap, or of all that look at one place."""

    row: int
    column: int
    weight: float
    beyond: bool
    """Whether that is beyond the map."""


class Scale(NamedTuple):
    """Which colour stands for which weight."""

    colours: str
    limits: FuncNorm


def draw(path: Path, scene: Scene) -> None:
    """Write the picture as PNG."""
    with plain_style(), rc_context({"hatch.linewidth": 0.4}):
        save_picture(path, figure_of(scene))


def figure_of(scene: Scene) -> Figure:
    """Return a figure with a row for every pixel, or several of many heads, and below all of these its filters."""
    rows, pairs = len(scene.sights), len(scene.channels)
    lines = math.ceil(len(scene.heads) / MOST_ACROSS)
    side, small = panel(rows * lines, heads_across(scene) + 1), panel(rows, 2 * pairs)
    across = max((heads_across(scene) + 1) * (side + GAP), pairs * (2 * small + 3 * GAP))
    width = max(LEFT + across + RIGHT, NARROWEST)
    title, notes = title_of(scene, width), notes_of(scene, width)
    first = LINE * (len(title) + 2.5)
    second = first + rows * lines * (side + GAP) + (rows * lines - 1) * name_height(scene) + 3.5 * LINE
    end = second + rows * (small + GAP) if pairs else second - 3.5 * LINE
    height = end + LINE * (len(notes) + 1)
    sheet = Sheet(Figure(figsize=(width, height), dpi=120))
    for line, text in enumerate(title):
        sheet.write(text, 0.15, LINE * (line + 0.8), size=10 if line == 0 else 9, ha="left")
    for line, text in enumerate(notes):
        sheet.write(text, 0.15, end + LINE * (line + 0.6), size=8, ha="left")
    draw_heads(sheet, scene, side, first)
    if pairs:
        draw_filters(sheet, scene, small, second)
    return sheet.figure


def heads_across(scene: Scene) -> int:
    """Return how many heads are side by side: of many, as many in each line."""
    return math.ceil(len(scene.heads) / math.ceil(len(scene.heads) / MOST_ACROSS))


def name_height(scene: Scene) -> float:
    """Return the space for names between lines of heads: one line's names are above all of its rows."""
    return 1.2 * LINE if len(scene.heads) > MOST_ACROSS else 0.0


def panel(rows: int, columns: int) -> float:
    """Return the side of panels of which there are so many."""
    return float(np.clip(ACROSS / max(rows, columns, 1), SMALLEST, LARGEST))


class Sheet:
    """A figure on which things are placed by inches from its upper left corner."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()

    def write(self, text: str, x: float, y: float, *, size: float = 8, ha: str = "center") -> None:
        """Write text around a height."""
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, ha=ha, va="center")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes without ticks."""
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="0.6", linewidth=0.5)
        return axes

    def bar(self, scale: Scale, label: str, x: float, y: float, height: float) -> None:
        """Draw what the colours stand for."""
        axes = self.axes(x, y, 0.14, height)
        bar = self.figure.colorbar(ScalarMappable(scale.limits, scale.colours), cax=axes)
        bar.set_label(label, fontsize=8)
        ticks = square(np.linspace(root(scale.limits.vmin), root(scale.limits.vmax), 5))
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
        bar.minorticks_off()
        bar.ax.tick_params(labelsize=7)


def draw_heads(sheet: Sheet, scene: Scene, side: float, top: float) -> None:
    """Draw the picture and the weights of the heads around every pixel."""
    laid = [[taps_of(scene, seen, weights) for weights in seen.weights] for seen in scene.sights]
    shown = [tap.weight for row in laid for taps in row for tap in taps]
    scale = scale_of(shown, scene.found.signed)
    across, step = heads_across(scene), side + GAP
    y = top
    for row, (seen, heads) in enumerate(zip(scene.sights, laid, strict=True)):
        label_row(sheet, seen, y + side / 2)
        draw_picture(sheet.axes(LEFT, y, side, side), scene, seen)
        if row == 0:
            sheet.write("picture", LEFT + side / 2, y - 0.6 * LINE)
        for number, (head, taps) in enumerate(zip(scene.heads, heads, strict=True)):
            x = LEFT + (number % across + 1) * step
            if number and number % across == 0:
                y += step + name_height(scene)
            if row == 0 or name_height(scene):
                sheet.write(f"head {head}", x + side / 2, y - 0.6 * LINE)
            draw_weights(sheet.axes(x, y, side, side), scene, seen, taps, scale)
        y += step + name_height(scene)
    sheet.bar(scale, "weight", LEFT + (across + 1) * step + 0.1, top, bar_height(len(scene.sights), side))


def draw_filters(sheet: Sheet, scene: Scene, side: float, top: float) -> None:
    """Draw the filters of channels before and after the ghost matrices, tap by tap."""
    every = [array for seen in scene.sights for array in (seen.before, seen.after)]
    scale = scale_of(np.concatenate([array.ravel() for array in every]), bool(min(array.min() for array in every) < 0))
    width = scene.found.channels // scene.found.heads
    for number, channel in enumerate(scene.channels):
        x = LEFT + number * (2 * side + 3 * GAP)
        sheet.write(f"channel {channel} (head {channel // width})", x + side + GAP / 2, top - 1.7 * LINE)
        for half, name in enumerate(["weights", "filter"]):
            sheet.write(name, x + half * (side + GAP) + side / 2, top - 0.6 * LINE, size=7)
        for row, seen in enumerate(scene.sights):
            y = top + row * (side + GAP)
            for half, weights in enumerate([seen.before[number], seen.after[number]]):
                draw_filter(sheet.axes(x + half * (side + GAP), y, side, side), scene, seen, weights, scale)
    for row, seen in enumerate(scene.sights):
        label_row(sheet, seen, top + row * (side + GAP) + side / 2)
    right = LEFT + len(scene.channels) * (2 * side + 3 * GAP) + 0.1
    sheet.bar(scale, "weight, filter", right, top, bar_height(len(scene.sights), side))


def label_row(sheet: Sheet, seen: Sight, middle: float) -> None:
    """Say which pixel a row of panels is of."""
    for line, (name, place) in enumerate([("pixel", seen.pixel), ("cell", seen.cell)]):
        sheet.write(f"{name} {place[0]}, {place[1]}", LEFT - 0.1, middle + (line - 0.5) * LINE, ha="right")


def bar_height(rows: int, side: float) -> float:
    """Return how high the bar of colours beside rows of panels is."""
    return min(rows * (side + GAP) - GAP, 3.0)


def scale_of(weights: Iterable[float], signed: bool) -> Scale:
    """Return colours from 0 to the largest weight, or, of signed ones, as far on both sides of 0.

    They go by the root of a weight, so that small ones can be told apart beside a large one.
    """
    largest = float(np.abs(np.fromiter(weights, float)).max(initial=0)) or 1.0
    limits = FuncNorm((root, square), -largest if signed else 0, largest)
    return Scale("RdBu_r" if signed else "YlOrRd", limits)


def root(weights: Any) -> Any:
    """Return the roots of the sizes of numbers, with their signs."""
    return np.sign(weights) * np.sqrt(np.abs(weights))


def square(weights: Any) -> Any:
    """Return what `root` makes these of."""
    return np.sign(weights) * np.square(weights)


def taps_of(scene: Scene, seen: Sight, weights: Any) -> list[Tap]:
    """Return the taps that count by where they look; the weights of those that look at one place are added up."""
    sums: dict[tuple[int, int], float] = {}
    for i, row in enumerate(seen.rows):
        for j, column in enumerate(seen.columns):
            if seen.counts[i, j]:
                sums[row, column] = sums.get((row, column), 0.0) + float(weights[i, j])
    return [Tap(*place, weight, is_beyond(scene, *place)) for place, weight in sums.items()]


def is_beyond(scene: Scene, row: int, column: int) -> bool:
    """Tell whether a place is not in the map that the layer looks at."""
    return not (0 <= row < scene.found.rows.length and 0 <= column < scene.found.columns.length)


def draw_picture(axes: Axes, scene: Scene, seen: Sight) -> None:
    """Draw the picture, what is looked at, and the pixel."""
    height, width = scene.picture.shape[:2]
    axes.imshow(scene.picture, extent=(0, width, height, 0), interpolation="nearest")
    places = [tap for tap in taps_of(scene, seen, seen.counts) if not tap.beyond]
    cells = PatchCollection([cell(scene, tap.row, tap.column) for tap in places])
    cells.set(facecolor=LOOKED_AT, edgecolor=LOOKED_AT, linewidth=0.3, alpha=0.4)
    axes.add_collection(cells)
    mark_pixel(axes, scene, seen)


def draw_weights(axes: Axes, scene: Scene, seen: Sight, taps: Sequence[Tap], scale: Scale) -> None:
    """Draw the part of the picture that is looked at, in grey, and the weights over it."""
    height, width = scene.picture.shape[:2]
    grey = 1 - PALE * (1 - scene.picture.mean(2))
    axes.imshow(grey, "gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="nearest")
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor="0.5", linewidth=0.8))
    cells = [cell(scene, tap.row, tap.column) for tap in taps]
    colour_cells(axes, cells, [tap.weight for tap in taps], [tap.beyond for tap in taps], scale, COVER)
    missing = np.argwhere(~seen.counts)
    cross_out(axes, [cell(scene, seen.rows[i], seen.columns[j]) for i, j in missing])
    mark_pixel(axes, scene, seen)
    frame(axes, scene, seen)


def draw_filter(axes: Axes, scene: Scene, seen: Sight, weights: Any, scale: Scale) -> None:
    """Draw the weights of one filter, tap by tap."""
    rows, columns = weights.shape
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
    taps = [(i, j) for i in range(rows) for j in range(columns)]
    there = [(i, j) for i, j in taps if seen.counts[i, j]]
    beyond = [is_beyond(scene, seen.rows[i], seen.columns[j]) for i, j in there]
    cells = {(i, j): Rectangle((j, i), 1, 1) for i, j in taps}
    colour_cells(axes, [cells[tap] for tap in there], [float(weights[tap]) for tap in there], beyond, scale, 1.0)
    cross_out(axes, [cells[tap] for tap in taps if not seen.counts[tap]])


def cell(scene: Scene, row: int, column: int) -> Rectangle:
    """Return the pixels that are a cell of the map which the layer looks at."""
    height, width = scene.cell_in
    return Rectangle((column * width, row * height), width, height)


def colour_cells(
    axes: Axes, cells: Sequence[Rectangle], weights: Sequence[float], beyond: Sequence[bool], scale: Scale, alpha: float
) -> None:
    """Colour cells by their weights, and hatch those that are beyond the map."""
    for hatched in (False, True):
        some = [number for number, flag in enumerate(beyond) if flag == hatched]
        if some:
            patches = PatchCollection([cells[number] for number in some], cmap=scale.colours, norm=scale.limits)
            patches.set(array=np.array([weights[number] for number in some]), alpha=alpha, linewidth=0.3)
            patches.set(edgecolor="0.3" if hatched else "white", hatch="/////" if hatched else None)
            axes.add_collection(patches)


def cross_out(axes: Axes, cells: Sequence[Rectangle]) -> None:
    """Draw a cross in place of taps that do not count."""
    if cells:
        middles = np.array([patch.get_center() for patch in cells])
        axes.scatter(middles[:, 0], middles[:, 1], s=9, marker="x", color="0.5", linewidths=0.7)


def mark_pixel(axes: Axes, scene: Scene, seen: Sight) -> None:
    """Draw the outline of the cell that looks."""
    height, width = scene.cell_out
    for colour, line in (("white", 2.4), (PIXEL, 1.2)):
        place = (seen.cell[1] * width, seen.cell[0] * height)
        axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor=colour, linewidth=line))


def frame(axes: Axes, scene: Scene, seen: Sight) -> None:
    """Show a square around all taps and the pixel, with a margin."""
    spans = []
    for axis, places in enumerate((seen.rows, seen.columns)):
        step, own = scene.cell_in[axis], seen.cell[axis] * scene.cell_out[axis]
        low = min(min(places) * step, own)
        high = max((max(places) + 1) * step, own + scene.cell_out[axis])
        spans.append((low, high))
    side = 1.08 * max(high - low for low, high in spans)
    (top, bottom), (left, right) = (((low + high - side) / 2, (low + high + side) / 2) for low, high in spans)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def title_of(scene: Scene, width: float) -> list[str]:
    """Return the lines above the panels."""
    found, pixels = scene.found, scene.picture.shape[:2]
    heads = f"head {scene.heads[0]}" if len(scene.heads) == 1 else f"heads {ranges(scene.heads)}"
    what = f"{scene.kind}, {times(found.kernel_size)} taps, {heads} of {found.heads}"
    cells = [found.rows.length, found.columns.length]
    where = (
        f"a map of {times(cells)} cells, each of {times(scene.cell_in)} of the {times(pixels)} pixels of the picture"
    )
    lines = [f"{scene.model}: {scene.layer}", what, where]
    return [part for line in lines for part in wrapped(line, width, 10)]


def notes_of(scene: Scene, width: float) -> list[str]:
    """Return the lines below the panels."""
    notes = ["pixels and cells: row, column", "blue: the cell that looks; magenta: where it looks"]
    counted = [
        (row, column)
        for seen in scene.sights
        for i, row in enumerate(seen.rows)
        for j, column in enumerate(seen.columns)
        if seen.counts[i, j]
    ]
    if any(is_beyond(scene, *place) for place in counted):
        notes.append("hatched: beyond the map")
    if any(not seen.counts.all() for seen in scene.sights):
        notes.append("x: no such tap")
    if any(len(set(places)) < len(places) for seen in scene.sights for places in (seen.rows, seen.columns)):
        notes.append("weights of taps at one place are added up")
    if scene.channels:
        notes.append("filter: the weights under the ghost matrices, mul · weights + add")
    return wrapped("; ".join(notes), width, 8)


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Break a line where the figure ends."""
    return textwrap.wrap(printable(text), int((width - 0.3) / (size * 0.0078)))


def ranges(numbers: Sequence[int]) -> str:
    """Write numbers as people do: 0-3, 7."""
    words: list[list[int]] = []
    for number in numbers:
        if words and number == words[-1][-1] + 1:
            words[-1].append(number)
        else:
            words.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in words)

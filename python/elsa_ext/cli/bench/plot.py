"""``--plot``: the times of a run as a picture."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..picture import plain_style, save_picture
from ..text import printable, three_digits
from .results import Record

OURS, OTHERS = ("#e69f00", "#b35c00"), ("#9db7cf", "#456a8c")  # of the first direction and the second
PANELS = 2  # side by side
WIDTH = 6.8  # inches
WIDEST = 30  # the range of times that an axis from zero can show


def draw(path: Path, run: Record) -> None:
    """Draw one panel per comparison: a bar per contender and direction, as long as its time."""
    with plain_style():
        save_picture(path, bars(run))


def bars(run: Record) -> Figure:
    """Return a figure with the panels and the legend of a run."""
    comparisons, here = run["comparisons"], run["machine"]
    columns = min(PANELS, len(comparisons))
    lines = [
        max(len(comparison["rows"]) for comparison in comparisons[start : start + columns])
        for start in range(0, len(comparisons), columns)
    ]
    heights = [1.1 + 0.24 * count for count in lines]
    figure = Figure(figsize=(WIDTH * columns, 1.1 + sum(heights)), dpi=130, layout="constrained")
    cpu = f"{here['cpu']}, {here['threads']} threads, {here['cpu_capability']}"
    title = f"elsa-ext bench {run['bench']}: {here['gpu'] or cpu}, torch {here['torch']}"
    figure.suptitle("\n".join(textwrap.wrap(printable(title), 72 * columns)), fontsize=11)
    grid = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    panels = list(grid.flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, comparison in zip(panels, comparisons, strict=False):
        draw_panel(axes, comparison)
    directions = list(dict.fromkeys(row["direction"] for part in comparisons for row in part["rows"]))
    handles = [
        Patch(color=colours[index], label=f"{who}, {direction}")
        for who, colours in (("ours", OURS), ("others", OTHERS))
        for index, direction in enumerate(directions)
    ]
    floor = Line2D([], [], color="black", marker="|", markersize=9, linestyle="none", label="floor of the machine")
    ncols = 5 if columns > 1 else 3
    figure.legend(handles=[*handles, floor], loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)
    return figure


def draw_panel(axes: Axes, comparison: Record) -> None:
    """Draw the bars of one comparison, contenders in the order of the table."""
    rows = comparison["rows"]
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    ours = {row["direction"]: row["median_ms"] for row in rows if row["ours"]}
    ticks: dict[str, list[float]] = {}
    step = len(directions) + 0.4
    for row in rows:
        direction = directions.index(row["direction"])
        place = contenders.index(row["contender"]) * step + direction
        ticks.setdefault(row["name"], []).append(place)
        axes.barh(place, row["median_ms"], height=0.88, color=(OURS if row["ours"] else OTHERS)[direction])
        axes.plot(row["floor_ms"], place, color="black", marker="|", markersize=9)
        ratio = "" if row["ours"] else f"   {three_digits(row['median_ms'] / ours[row['direction']])} x"
        text = f"{three_digits(row['median_ms'])} ms{ratio}"
        at = max(row["median_ms"], row["floor_ms"])
        axes.annotate(text, (at, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_axis_on()
    shortest = min(min(row["median_ms"], row["floor_ms"]) for row in rows) / 1.5
    longest = max(row["median_ms"] for row in rows)
    if longest > WIDEST * shortest:
        axes.set_xscale("log")
        axes.set_xlim(shortest, longest * (longest / shortest) ** 0.45)  # room for the numbers
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if longest < 100 * shortest else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, longest * 1.35)
    # A name stands once, between the bars that it belongs to.
    middles = [sum(places) / len(places) for places in ticks.values()]
    axes.set_yticks(middles, [printable(name) for name in ticks], fontsize=8)
    axes.invert_yaxis()
    name, sizes = comparison["title"].split(": ", 1)
    axes.set_title("\n".join(map(printable, [name, *textwrap.wrap(sizes, 80)])), fontsize=9, loc="left")
    axes.set_xlabel("milliseconds", fontsize=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)

"""Draw the README's picture from what ``elsa-ext bench`` has measured.

``python benchmarks/readme_picture.py`` writes docs/images/neighborhood-cpu.png: how long neighbourhood attention takes
on a CPU, and what people use for it, at the first stage of Swin-T, from benchmarks/results.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
OP, LAYER = "cpu-intel-xeon-neighborhood.json", "cpu-intel-xeon-neighborhood-module.json"
NAMES = {
    "elsa_ext": "elsa_ext",
    "flex": "FlexAttention",
    "sdpa": "SDPA over the whole map",
    "unfold": "F.unfold",
    "timm": "window attention of timm",
}
PANELS = (
    ("the op, forward", OP, "forward", ("elsa_ext", "flex", "sdpa", "unfold")),
    ("the op, forward + backward", OP, "forward + backward", ("elsa_ext", "flex", "sdpa", "unfold")),
    ("the layer, forward + backward", LAYER, "forward + backward", ("elsa_ext", "timm")),
)
OURS, OTHERS = "#0b7285", "#adb5bd"


def first_stage(file: str) -> dict[str, Any]:
    """Return the comparison at the first stage of Swin-T, and check that it is one."""
    run = json.loads((ROOT / "benchmarks" / "results" / file).read_text())
    comparison: dict[str, Any] = run["comparisons"][0]
    assert comparison["problem"]["name"] == "swin-t-1", comparison["label"]
    return comparison


def draw(axes: Any, title: str, rows: list[dict[str, Any]], direction: str, shown: tuple[str, ...]) -> None:
    """Draw a bar for each contender, with its time and how many times ours it is; a note where it cannot do it."""
    times = {row["contender"]: row["median_ms"] for row in rows if row["direction"] == direction}
    ours = times["elsa_ext"]
    for place, name in enumerate(shown):
        time = times.get(name)
        axes.barh(place, time or 0, color=OURS if name == "elsa_ext" else OTHERS)
        if time is None:
            text = "has no backward on a CPU"
        elif name == "elsa_ext":
            text = f"{time:,.3g} ms"
        else:
            text = f"{time:,.0f} ms, {time / ours:.3g} ×"
        axes.annotate(text, (time or 0, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [NAMES[name] for name in shown], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(times[name] for name in shown if name in times))
    axes.set_xticks([])
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def main() -> None:
    """Draw the panels below each other."""
    heights = [len(shown) for *_, shown in PANELS]
    figure, axes = plt.subplots(len(PANELS), 1, figsize=(7.5, 4.2), height_ratios=heights, layout="constrained")
    for axis, (title, file, direction, shown) in zip(axes, PANELS, strict=True):
        draw(axis, title, first_stage(file)["rows"], direction, shown)
    figure.suptitle(
        "Neighbourhood attention on two cores: 8 × 56 × 56 pixels, 96 channels, K = 7, float32", fontsize=11
    )
    figure.savefig(ROOT / "docs" / "images" / "neighborhood-cpu.png", dpi=150)


if __name__ == "__main__":
    main()

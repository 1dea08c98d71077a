"""Drawing pictures that look alike for everybody, whatever names are in them and whatever matplotlib is told to do."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from .files import write_whole


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """Draw with matplotlib's own settings, and take text for text: dollars are no formulas."""
    with style.context(["default", {"text.parse_math": False}]), warnings.catch_warnings():
        # The fonts that come with matplotlib lack many scripts; it draws a box in place of such a letter.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield


def save_picture(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    write_whole(path, lambda file: figure.savefig(file, format="png"))

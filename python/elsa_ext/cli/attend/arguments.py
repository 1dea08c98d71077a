"""The arguments of ``elsa-ext attend``."""

import argparse
from pathlib import Path

from ..argument_types import Parser, add_checkpoint, given, number, picture

DESCRIPTION = """\
Draw where a local layer of a model looks in an image: the weights of every head around some pixels, laid over the
image, and where the layer has ghost matrices, the filters of some channels before them and after.

The picture is the image as the model sees it, resized and cropped; ROW,COL counts its pixels from the upper left.
"""

EPILOG = """\
examples:
  elsa-ext attend runs/flowers/checkpoint.pt rose.jpg --at 100,120 40,60
  elsa-ext attend runs/flowers/checkpoint.pt rose.jpg --layer list
  elsa-ext attend runs/flowers/checkpoint.pt rose.jpg --layer layers.1.blocks.0.attn --grid 3 --output rose-attend.png
"""

MOST_PIXELS, MOST_HEADS, MOST_CHANNELS = 16, 32, 16
"""That one picture shows."""


def add_attend(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext attend``."""
    parser = commands.add_parser(
        "attend",
        help="draw where a layer looks in an image",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument("image", type=given, metavar="IMAGE", help="image file")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--at", type=pixel, metavar="ROW,COL", nargs="+", help=f"pixels to look from, {MOST_PIXELS} at most"
    )
    where.add_argument("--grid", type=number(int, 1, 4), metavar="N", help="or N x N of them (default: 2 x 2)")
    parser.add_argument(
        "--layer", type=given, metavar="NAME", help="the layer, or list for all names (default: the first)"
    )
    parser.add_argument(
        "--heads",
        type=number(int, 0),
        metavar="HEAD",
        nargs="+",
        help=f"heads to draw (default: the first {MOST_HEADS})",
    )
    parser.add_argument(
        "--channels",
        type=number(int, 0),
        metavar="CHANNEL",
        nargs="+",
        help=f"channels to draw the filters of, {MOST_CHANNELS} at most (default: the 8 that change most)",
    )
    parser.add_argument(
        "--output",
        type=lambda text: Path(picture(text)),
        default=Path("attend.png"),
        metavar="FILE.png",
        help="(default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print all numbers of the picture as JSON")


def pixel(text: str) -> tuple[int, int]:
    """Read ROW,COL; an argparse type."""
    row, _, column = text.partition(",")
    if not (row.strip().isdecimal() and column.strip().isdecimal()):
        raise argparse.ArgumentTypeError(f"expected ROW,COL, two whole numbers >= 0, got {text!r}")
    return int(row), int(column)

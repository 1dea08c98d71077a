"""The arguments of ``elsa-ext evaluate``."""

import argparse

from ..argument_types import MOST_WORKERS, Parser, add_checkpoint, given, number, picture

DESCRIPTION = """\
Tell how often a checkpoint is right: top-1 and top-5 accuracy, precision and recall of every class, the confusion
matrix, and images per second.

Without --data on the images that the training was tested on, which gives the accuracy that it printed; a fifth of every
class is drawn again with the training's seed. A folder with parts (train, val) is evaluated on its test part, one of
classes on all of it, unless these are the images of the training.
"""

EXAMPLES = """\
examples:
  elsa-ext evaluate runs/flowers/checkpoint.pt
  elsa-ext evaluate runs/flowers/checkpoint.pt --data other-flowers --confusion confusion.png
  elsa-ext evaluate runs/flowers/checkpoint.pt --json > evaluation.json
"""


def add_evaluate(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of a checkpoint",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--data",
        type=given,
        metavar="FOLDER",
        help="images of the same classes: a folder, digits, or fashion-mnist (default: what the training had)",
    )
    parser.add_argument("--confusion", type=picture, metavar="FILE.png", help="draw the confusion matrix")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document, confusion matrix included, and nothing else"
    )
    parser.add_argument(
        "--batch-size",
        type=number(int, 1),
        metavar="N",
        help="images at a time (default: as in the training, at most 256)",
    )
    parser.add_argument(
        "--amp",
        choices=("bf16", "fp16", "off"),
        help="compute in 16 bits where that is safe (default: as the training did)",
    )
    parser.add_argument(
        "--device", type=given, metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one, or cpu)"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 0, MOST_WORKERS),
        default=0,
        metavar="N",
        help="processes that load images beside the model; 0 loads them in between (default: %(default)s)",
    )
    parser.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        help="what to do if an image cannot be read; those that are skipped are named (default: as the training did)",
    )

"""The arguments of ``elsa-ext classify``."""

import argparse

from ..argument_types import Parser, add_checkpoint, given, number

DESCRIPTION = """\
Print the most probable classes of each image.

Any format that Pillow reads, grayscale or colour; transparent pixels count as white. Any size up to 178956970 pixels;
the environment variable ELSA_MAX_IMAGE_PIXELS sets another limit. Of a folder the images in it are classified, at any
depth, those that elsa-ext train would take.
An image that cannot be read is reported, the others are classified, and the exit code is 2.
"""

EXAMPLES = """\
examples:
  elsa-ext classify runs/flowers/checkpoint.pt photo.jpg
  elsa-ext classify runs/flowers/checkpoint.pt photos --top 1 --batch-size 32 --csv > classes.csv
  find photos -name '*.jpg' -print0 | elsa-ext classify runs/flowers/checkpoint.pt - --json
"""


def add_classify(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext classify``."""
    parser = commands.add_parser(
        "classify",
        help="print the most probable classes of images",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "images",
        type=given,
        metavar="IMAGE",
        nargs="+",
        help="image file, folder of images, or - for a list of them on the standard input, one per line or each "
        "with a NUL after it",
    )
    parser.add_argument(
        "--top", type=number(int, 1), default=5, metavar="N", help="classes per image (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=number(int, 1),
        default=1,
        metavar="N",
        help="images at a time; more are faster, and change the last digits at most (default: %(default)s)",
    )
    parser.add_argument(
        "--device", type=given, default="cpu", metavar="NAME", help="such as cuda or cuda:1 (default: %(default)s)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list: of each image its classes, or its error")
    form.add_argument(
        "--csv", action="store_true", help="print image, rank, class and probability, one row per image and rank"
    )

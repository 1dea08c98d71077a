"""The arguments of every command."""

import argparse

import elsa_ext

from .argument_types import Parser, given, number
from .bench.arguments import add_bench
from .compare_arguments import add_compare
from .train_arguments import add_train

DESCRIPTION = """\
ELSA (enhanced local self-attention): train an image classifier, use it, time the ops and models, report a problem.
"""

EXAMPLES = """\
examples:
  elsa-ext train                                        handwritten digits, nothing to download
  elsa-ext train --data flowers --output runs/flowers   your images, flowers/<class>/*
  elsa-ext classify runs/flowers/checkpoint.pt *.jpg
  elsa-ext compare elsa "qk+rb softmax window"          which local operator is worth most
  elsa-ext bench op                                     time the ops against what else there is
  elsa-ext info                                         what to paste into a bug report
"""

CLASSIFY = """\
Print the most probable classes of each image.

Any format that Pillow reads, grayscale or colour; transparent pixels count as white. Any size up to 178956970 pixels;
the environment variable ELSA_MAX_IMAGE_PIXELS sets another limit.
An image that cannot be read is reported, the others are classified, and the exit code is 2.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``elsa-ext``; ``command`` in its result names the module of the chosen command."""
    parser = Parser(
        prog="elsa-ext",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"elsa-ext {elsa_ext.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_train(commands)
    add_classify(commands)
    add_compare(commands)
    add_bench(commands)
    commands.add_parser(
        "info",
        help="print versions, CPU and build, as a bug report needs them",
        description="Print what a bug report needs: versions, build, CPU, threads and GPU.",
    )
    return parser


def add_classify(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext classify``."""
    parser = commands.add_parser(
        "classify",
        help="print the most probable classes of images",
        description=CLASSIFY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", type=given, metavar="CHECKPOINT", help="checkpoint.pt from the run folder of elsa-ext train"
    )
    parser.add_argument("images", type=given, metavar="IMAGE", nargs="+", help="image file")
    parser.add_argument(
        "--top", type=number(int, 1), default=5, metavar="N", help="classes per image (default: %(default)s)"
    )

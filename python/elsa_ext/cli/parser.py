"""The arguments of every command."""

import argparse

import elsa_ext

from .argument_types import Parser, given, number
from .bench.arguments import add_bench

DESCRIPTION = """\
ELSA (enhanced local self-attention): train an image classifier, use it, time the ops and models, report a problem.
"""

EXAMPLES = """\
examples:
  elsa-ext train                                        handwritten digits, nothing to download
  elsa-ext train --data flowers --output runs/flowers   your images, flowers/<class>/*
  elsa-ext classify runs/flowers/checkpoint.pt *.jpg
  elsa-ext bench op                                     time the ops against what else there is
  elsa-ext info                                         what to paste into a bug report
"""

TRAIN = """\
Train an image classifier. Without arguments: elsa_swin_micro on the 1797 handwritten digits of scikit-learn.

The run folder receives
  checkpoint.pt   the weights after the last full epoch, and what `elsa-ext classify` needs to use them
  metrics.csv     one row per epoch
  curves.png      loss and accuracy over the epochs
  samples/        only for the digits: one test image of each, light on dark, to try `elsa-ext classify` on
Ctrl-C, SIGTERM and SIGHUP stop the training and keep them.
"""

DATA = """\
layout of --data FOLDER:
  FOLDER/<class>/*           one fifth of every class, drawn with --seed, is the test set
or
  FOLDER/train/<class>/*     what to train on; "training" and "Train" do as well
  FOLDER/val/<class>/*       what to test on; also valid, validation, dev or eval, or test if there is none of these
Images are the files of all formats that Pillow reads, in folders of any depth. Names that begin with a dot and what
systems leave in folders (Thumbs.db, __MACOSX, ...) do not count; other files are left out, and counted in the output.
Pictures of more than 178956970 pixels are refused; the environment variable ELSA_MAX_IMAGE_PIXELS sets another limit.
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
    add_bench(commands)
    commands.add_parser(
        "info",
        help="print versions, CPU and build, as a bug report needs them",
        description="Print what a bug report needs: versions, build, CPU, threads and GPU.",
    )
    return parser


def add_train(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext train``."""
    parser = commands.add_parser(
        "train",
        help="train an image classifier",
        description=TRAIN,
        epilog=DATA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=given, metavar="FOLDER", help="folder of images, see below (default: the digits)"
    )
    parser.add_argument(
        "--model",
        type=given,
        default="elsa_swin_micro",
        metavar="NAME",
        help="elsa_swin_micro, _tiny, _small, _base, elsa_volo_d1 to _d5, or any model of timm (default: %(default)s)",
    )
    parser.add_argument(
        "--image-size",
        type=number(int, 1),
        metavar="N",
        help="train on N x N pixels (default: the size that the model is made for)",
    )
    parser.add_argument(
        "--epochs", type=number(int, 1), default=15, metavar="N", help="passes over the images (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=number(int, 1), default=32, metavar="N", help="images per step (default: %(default)s)"
    )
    parser.add_argument(
        "--lr",
        type=number(float, 1e-12),
        default=2e-3,
        metavar="X",
        help="highest learning rate of AdamW; it warms up over the first tenth of the steps, and falls along a cosine "
        "to zero (default: %(default)s, chosen for elsa_swin_micro)",
    )
    parser.add_argument(
        "--weight-decay",
        type=number(float, 0.0),
        default=0.05,
        metavar="X",
        help="weight decay of AdamW (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        default=0,
        metavar="N",
        help="seed of the weights, the order and the augmentation of the images: on the same machine the same seed "
        "gives the same run (default: %(default)s)",
    )
    parser.add_argument(
        "--device", type=given, metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one, or cpu)"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="processes that load images beside the training; 0 loads them in between (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=given,
        metavar="DIR",
        help="run folder, new or without files of these names (default: runs/<data>-<date>-<time>)",
    )


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

"""The arguments of ``elsa-ext export``."""

import argparse
import os

from ..argument_types import Parser, add_checkpoint, given

DESCRIPTION = """\
Write the model of a checkpoint for programs that have no elsa-ext, for any number of images at once.

  .pt, .ts   TorchScript: for torch in Python or C++, with libelsa_cpu.so
  .pt2       a package of AOTInductor: the same, compiled for the CPU of this machine
  .onnx      ONNX, for ONNX Runtime and others: standard operators alone, without our kernels' speed

What is written is loaded again and compared with the model on random images; only if both agree is it put in place.
The classes, and the size, mean and deviation of the images that the model takes, are in the file as well.
"""

EXAMPLES = """\
examples:
  elsa-ext export runs/flowers/checkpoint.pt flowers.onnx
  elsa-ext export runs/flowers/checkpoint.pt flowers.model --format torchscript
"""

TORCHSCRIPT, AOT, ONNX = "torchscript", "aot", "onnx"
FORMATS = {".pt": TORCHSCRIPT, ".ts": TORCHSCRIPT, ".pt2": AOT, ".onnx": ONNX}
"""By the suffix of the file."""


def export_format(args: argparse.Namespace) -> str | None:
    """Return the format that ``args`` ask for, or None if nothing says which."""
    named: str | None = args.format
    return named or FORMATS.get(os.path.splitext(args.output)[1].lower())


def add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext export``."""
    parser = commands.add_parser(
        "export",
        help="write a model as TorchScript, AOTInductor package or ONNX",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument("output", type=given, metavar="OUT", help="file to write")
    parser.add_argument(
        "--format", choices=(TORCHSCRIPT, AOT, ONNX), help="what to write (default: by the suffix of OUT)"
    )

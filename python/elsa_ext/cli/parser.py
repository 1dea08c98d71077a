"""The arguments of every command."""

import argparse

import elsa_ext

from .argument_types import Parser
from .attend_arguments import add_attend
from .bench.arguments import add_bench
from .classify_arguments import add_classify
from .compare_arguments import add_compare
from .completion_arguments import add_completion
from .evaluate_arguments import add_evaluate
from .export_arguments import add_export
from .train_arguments import add_train

DESCRIPTION = """\
Local attention: train an image classifier, use it, see where it looks, compare operators, time them, report a problem.
"""

EXAMPLES = """\
examples:
  elsa-ext train                                        handwritten digits, nothing to download
  elsa-ext train --data flowers --output runs/flowers   your images, flowers/<class>/*
  elsa-ext evaluate runs/flowers/checkpoint.pt          accuracy, of every class too
  elsa-ext classify runs/flowers/checkpoint.pt *.jpg
  elsa-ext export runs/flowers/checkpoint.pt flowers.onnx
  elsa-ext attend runs/flowers/checkpoint.pt rose.jpg   draw where its layers look
  elsa-ext compare elsa "qk+rb softmax window"          which local operator is worth most
  elsa-ext bench op                                     time the ops against what else there is
  elsa-ext info                                         what to paste into a bug report
"""

INFO = """\
examples:
  elsa-ext info
  elsa-ext info --json
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
    add_evaluate(commands)
    add_classify(commands)
    add_export(commands)
    add_attend(commands)
    add_compare(commands)
    add_bench(commands)
    add_info(commands)
    add_completion(commands)
    return parser


def add_info(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext info``."""
    parser = commands.add_parser(
        "info",
        help="print versions, CPU and build, as a bug report needs them",
        description="Print what a bug report needs: versions, build, CPU, threads and GPU.",
        epilog=INFO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")

"""The arguments of every command."""

import argparse

import elsa_ext

from .argument_types import Parser
from .attend.arguments import add_attend
from .bench.arguments import add_bench
from .classify.arguments import add_classify
from .compare.arguments import add_compare
from .completion.arguments import add_completion
from .evaluate.arguments import add_evaluate
from .export.arguments import add_export
from .info.arguments import add_info
from .train.arguments import add_train

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

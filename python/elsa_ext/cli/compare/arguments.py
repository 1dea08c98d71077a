"""The arguments of ``elsa-ext compare``."""

import argparse

from ..argument_types import Parser, given, number, spec
from ..train.arguments import add_augmentation, add_basics, add_optimization, add_running, expand

DESCRIPTION = """\
Train one architecture with each of several local operators, with several seeds each, and show what came of it.

A SPEC says which terms make the weights, how they are normalised and where they are applied, as in
"qk+rb softmax window"; "elsa" is "hadamard softmax neighborhood add". All else is the same for all: the images, the
steps and the options, which are those of `elsa-ext train`. The accuracy is that on all test images after the last
epoch, and its spread the standard deviation over the seeds.

The folder receives
  <spec>/seed<n>/   a run folder of `elsa-ext train` for each of them
  results.csv       what the table on the standard output says
  compare.png       the accuracies
The same command again, after whatever has stopped it, keeps the runs that are finished, and goes on with the others.
"""

EPILOG = """\
examples:
  elsa-ext compare elsa "qk+rb softmax window" --epochs 5 --seeds 2
  elsa-ext compare --set members --data fashion-mnist --limit 1000 --epochs 6 --output runs/fashion
"""

SETS = {
    "members": (
        "qk+rb softmax window",
        "qk+rb softmax neighborhood",
        "qk+rb softmax neighborhood border=shift",
        "rb none window heads=C",
        "rb none neighborhood heads=C",
        "qr none neighborhood",
        "qk+qr+rk+rb softmax neighborhood",
        "hadamard softmax neighborhood",
        "hadamard softmax neighborhood mul",
        "hadamard softmax neighborhood add",
        "hadamard softmax neighborhood mul add",
    ),
    "terms": tuple(
        f"{terms} softmax neighborhood"
        for terms in ("qk", "qr", "rk", "rb", "qk+rb", "qk+qr", "qk+qr+rk", "qk+qr+rk+rb", "hadamard")
    ),
    "norms": tuple(
        f"{terms} {norm} neighborhood"
        for terms in ("qk+rb", "qr", "hadamard")
        for norm in ("softmax", "filter", "none")
    ),
    "regions": tuple(
        f"{operator} {region}{heads}"
        for operator, heads in (("qk+rb softmax", ""), ("qr none", ""), ("rb none", " heads=C"))
        for region in ("window", "neighborhood", "neighborhood border=shift")
    ),
    "heads": tuple(
        f"{operator} heads={heads}"
        for operator in ("qk+rb softmax neighborhood", "rb none neighborhood")
        for heads in (1, 4, 16, "C")
    ),
}
"""Specs by what they differ in; "members" are the known operators."""

OWN = frozenset({"specs", "set", "seeds", "json"})
"""What is not an argument of ``elsa-ext train``."""


def add_compare(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext compare``."""
    parser = commands.add_parser(
        "compare",
        help="train one architecture with several local operators",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.expand = expand
    parser.add_argument("specs", type=spec, nargs="*", metavar="SPEC", help="local operator; see docs/family.md")
    parser.add_argument("--set", choices=tuple(SETS), help="specs that are compared as well: by what they differ in")
    parser.add_argument(
        "--seeds",
        type=number(int, 1, 1000),
        default=3,
        metavar="N",
        help="runs of each, with seeds from --seed on (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=given,
        default="runs/compare",
        metavar="DIR",
        help="folder of all runs (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_basics(parser)
    add_optimization(parser.add_argument_group("optimization"))
    add_augmentation(parser.add_argument_group("augmentation"))
    add_running(parser.add_argument_group("running"))

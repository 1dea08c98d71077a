"""``elsa-ext bench``: time the ops, the layer and the models against what people would use in their place."""

import argparse


def run(args: argparse.Namespace) -> int:
    """Measure as ``args`` say; return 1 if ``--compare`` finds a row of ours slower than it was."""
    # The parser imports this package, also where what a measurement needs is not installed.
    from .command import measure_and_report

    return measure_and_report(args)

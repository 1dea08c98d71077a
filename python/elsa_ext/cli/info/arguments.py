"""The arguments of ``elsa-ext info``."""

import argparse

from ..argument_types import Parser

INFO = """\
examples:
  elsa-ext info
  elsa-ext info --json
"""


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

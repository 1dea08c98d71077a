"""``elsa-ext completion``: scripts that complete commands, options and choices, made from the parser."""

import argparse

from ..parser import build_parser
from .scripts import bash, fish, zsh
from .words import read_parser

SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def run(args: argparse.Namespace) -> int:
    """Print the script for a shell."""
    print(SHELLS[args.shell](read_parser(build_parser())), end="")
    return 0

"""``elsa-ext completion``: scripts that complete commands, options and choices, made from the parser."""

import argparse

from .completion_scripts import bash, fish, zsh
from .completion_words import read_parser
from .parser import build_parser

SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def run(args: argparse.Namespace) -> int:
    """Print the script for a shell."""
    print(SHELLS[args.shell](read_parser(build_parser())), end="")
    return 0

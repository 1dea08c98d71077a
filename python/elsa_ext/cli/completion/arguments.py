"""The arguments of ``elsa-ext completion``."""

import argparse

from ..argument_types import Parser

DESCRIPTION = "Print a script by which a shell completes the commands, options and choices of elsa-ext, and file names."

EXAMPLES = """\
examples:
  source <(elsa-ext completion bash)                                    in ~/.bashrc
  source <(elsa-ext completion zsh)                                     in ~/.zshrc, after compinit
  elsa-ext completion fish > ~/.config/fish/completions/elsa-ext.fish
"""


def add_completion(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext completion``."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes elsa-ext in a shell",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to complete in")

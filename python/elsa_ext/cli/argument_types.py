"""What the arguments of all commands share: the parser's kind of error, names, a checkpoint, numbers with limits."""

import argparse
import math
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

from ..nn import LocalSpec
from .text import printable

ELSA = "hadamard softmax neighborhood add"
"""The operator of ELSA-Swin."""

LARGEST = 1e15
"""What any number may be at most: products of two still fit into the 32 bits that models compute in."""

MOST_WORKERS = 1024
"""Threads, or processes, that a command starts at most: many more bring the machine down."""

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """An argument parser whose error is one line, and which takes no flag for another that begins like it."""

    expand: "Callable[[Parser, list[str]], list[str]] | None" = None
    """What makes of the arguments those to parse."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; what is unknown is an error of the command that it was given to, whose help names what is known."""
        args = args if self.expand is None else self.expand(self, list(args))
        namespace, unknown = super().parse_known_args(args, namespace)
        unknown = self.take_more(namespace, unknown)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            word = unknown[0].partition("=")[0]
            close = [flag for flag in flags if flag.startswith(word)] or get_close_matches(word, flags, 1, 0.8)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unknown {' '.join(unknown)}{hint}")
        return namespace, unknown

    def take_more(self, namespace: argparse.Namespace, words: list[str]) -> list[str]:
        """Add words to the argument that takes any number, and return what is left: argparse ends it at an option."""
        lists = [action for action in self._get_positional_actions() if action.nargs in ("*", "+")]
        count = next((at for at, word in enumerate(words) if word.startswith("-") and word != "-"), len(words))
        if not lists or not count:
            return words
        try:
            more = [self._get_value(lists[0], word) for word in words[:count]]
        except argparse.ArgumentError as error:
            self.error(str(error))
        setattr(namespace, lists[0].dest, [*getattr(namespace, lists[0].dest), *more])
        return words[count:]

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:  # --help and --version, whose failure argparse passes over
            print(message, end="", flush=True)
        else:
            super()._print_message(message, file)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint that a command is about."""
    parser.add_argument(
        "checkpoint", type=given, metavar="CHECKPOINT", help="checkpoint.pt from the run folder of elsa-ext train"
    )


def given(text: str) -> str:
    """Read the name of something; an argparse type.

    An empty name is a mistake, such as that of a shell variable that is not set, though it would lead to a folder.
    """
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a name, got {text!r}")
    return text


def picture(text: str) -> str:
    """Read the name of a PNG to write; an argparse type. A device or a pipe, which has no suffix, will do."""
    if os.path.splitext(given(text))[1].lower() not in ("", ".png"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .png, got {text!r}")
    return text


def spec(text: str) -> str:
    """Read a spec of `elsa_ext.nn.LocalSpec`, or "elsa", and return it as that writes it; an argparse type."""
    try:
        return str(LocalSpec.parse(ELSA if text == "elsa" else text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("LocalSpec: ")) from None


def number(kind: Callable[[str], Number], low: Number, high: float = math.inf) -> Callable[[str], Number]:
    """Return an argparse type that reads a ``kind`` between ``low`` and ``high``, and says so if it cannot."""
    what = "a whole number" if kind is int else "a number"
    limits = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:.10g}"

    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected {what} {limits}, got {text!r}")
        if value > LARGEST:
            raise argparse.ArgumentTypeError(f"expected {what} <= {LARGEST:g}, got {text!r}")
        return value

    return read

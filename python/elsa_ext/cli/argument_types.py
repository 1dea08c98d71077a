"""What the arguments of all commands share: the parser's kind of error, and numbers with limits."""

import argparse
import math
from collections.abc import Callable
from typing import NoReturn, TypeVar

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """An argument parser whose error is one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def number(kind: Callable[[str], Number], low: Number, high: float = math.inf) -> Callable[[str], Number]:
    """Return an argparse type that reads a ``kind`` between ``low`` and ``high``, and says so if it cannot."""
    what = "a whole number" if kind is int else "a number"
    limits = f">= {low}" if high == math.inf else f"from {low} to {high:g}"

    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or math.isinf(value):
            raise argparse.ArgumentTypeError(f"expected {what} {limits}, got {text!r}")
        return value

    return read

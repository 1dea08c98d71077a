"""The ``elsa-ext`` command: train a classifier, classify images with it, time the ops, say what is installed."""

import argparse
import importlib.util
import io
import os
import sys
from collections.abc import Sequence

from .errors import CommandError
from .parser import build_parser

__all__ = ["main"]

CLASSIFY = ("timm", "torchvision", "PIL")


def needs(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Return what a command imports that ``pip install elsa-ext`` alone does not bring, after the extra that does."""
    if args.command == "train":
        return "train", (*CLASSIFY, "sklearn", "matplotlib", "tqdm")
    if args.command == "classify":
        return "train", CLASSIFY
    if args.command == "bench":
        models = () if args.kind == "op" else ("timm", "torchvision")
        return "bench", ("tqdm", *models, *(("matplotlib",) if args.plot else ()))
    return "", ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``elsa-ext`` and return its exit code.

    0, 1 if ``bench --compare`` finds something slower, 2 for a mistake of the user, 130 after Ctrl-C.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Raises:
        SystemExit: After ``--help`` and ``--version``, and for arguments that cannot be parsed.
    """
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name need not be valid text, and whoever reads a pipe wants to see each epoch as it ends.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        import_optional(*needs(args))
        code: int = importlib.import_module(f".{args.command}", __package__).run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:
        # The reader of our output has gone, `elsa-ext … | head`: Python must not flush into it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CommandError as error:
        # A data loader's worker hands over its whole traceback as text; the message stands after the class's name.
        message, code = str(error).rpartition("CommandError: ")[2].strip(), 2
    except OSError as error:
        message, code = str(error), 2
    print(f"elsa-ext {args.command}: {message}", file=sys.stderr)
    return code


def import_optional(extra: str, packages: Sequence[str]) -> None:
    """Make ``packages`` importable, or raise a ``CommandError`` that says how to install them."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise CommandError(f"{', '.join(missing)} not installed: pip install 'elsa-ext[{extra}]'")
    if "timm" in packages:
        # Before anything imports torchvision: this makes it importable even if it was built for another torch.
        importlib.import_module("elsa_ext.models")

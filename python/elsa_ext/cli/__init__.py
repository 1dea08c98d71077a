"""The ``elsa-ext`` command: train a classifier, measure, use and export it, time the ops, say what is installed."""

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Sequence

from .._install import install_command
from .errors import CommandError, describe
from .export.arguments import ONNX, export_format
from .parser import build_parser
from .signals import Stopped, stop_signals
from .streams import prepare_streams, settle_streams
from .text import printable

__all__ = ["main"]

CLASSIFY = ("timm", "torchvision", "PIL", "tqdm")
TRAIN = (*CLASSIFY, "sklearn", "matplotlib")


def needs(args: argparse.Namespace) -> tuple[str, ...]:
    """Return what a command imports that the package alone does not bring."""
    if args.command in ("train", "evaluate", "compare"):
        return TRAIN
    if args.command == "classify":
        return CLASSIFY
    if args.command == "export":
        return (*CLASSIFY, *(("onnx", "onnxscript") if export_format(args) == ONNX else ()))
    if args.command == "attend":
        return (*CLASSIFY, "matplotlib")
    if args.command == "bench":
        models = () if args.kind == "op" else ("timm", "torchvision")
        return ("tqdm", *models, *(("matplotlib",) if args.plot else ()))
    return ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``elsa-ext`` and return its exit code.

    0, 1 if ``bench --compare`` finds something slower or the work has failed on its way, 2 for a mistake of the user
    and for what cannot be written, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Raises:
        SystemExit: After ``--help`` and ``--version``, and for arguments that cannot be parsed.
    """
    program, code = "elsa-ext", 2
    try:
        prepare_streams()
        args = build_parser().parse_args(argv)
        program = f"elsa-ext {args.command}"
        with stop_signals():
            return execute(args)
    except Stopped as stop:
        message, code = str(stop), 128 + stop.signal
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:
        message, code = "", 1  # the reader of our output has had enough of it, `elsa-ext … | head`
    except (CommandError, OSError) as error:
        message = describe(error)
        code = error.code if isinstance(error, CommandError) else code
    finally:
        settle_streams()
    if message:
        with contextlib.suppress(OSError):
            print(f"{program}: {printable(message)}", file=sys.stderr)
    settle_streams()
    return code


def execute(args: argparse.Namespace) -> int:
    """Run the command that ``args`` name and return its exit code."""
    import_optional(needs(args))
    code: int = importlib.import_module(f".{args.command}.command", __package__).run(args)
    sys.stdout.flush()
    return code


def import_optional(modules: Sequence[str]) -> None:
    """Make ``modules`` importable, or raise a ``CommandError`` that says how to install what is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise CommandError(f"{', '.join(missing)} not installed: {install_command(*missing)}")
    if "timm" in modules:
        # Before anything imports torchvision: this makes it importable even if it was built for another torch.
        importlib.import_module("elsa_ext.models")

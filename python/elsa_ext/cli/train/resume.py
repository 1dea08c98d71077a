"""Finding the run that ``elsa-ext train --resume`` goes on with, and holding the arguments against its own."""

import argparse
import os
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, load
from ..data.data_set import Data
from ..errors import CommandError
from .arguments import NOT_KEPT, RUNNING
from .run_folder import CHECKPOINT


def find_run(args: argparse.Namespace) -> Checkpoint | None:
    """Return the checkpoint to go on from, if there is one, and give ``args`` its options and folder.

    Raises:
        CommandError: There is none although a folder was named, or it cannot be gone on from, or ``args`` differ.
    """
    if args.resume is None:
        return None
    folder = named_folder(args)
    if args.resume is True and not os.path.lexists(folder / CHECKPOINT):
        return None
    if not folder.is_dir():
        raise CommandError(f"--resume {folder}: no such folder")
    path = folder / CHECKPOINT
    found = load(str(path))
    if found.training is None:
        raise CommandError(f"{path} holds weights alone: --pretrained {path} begins a new run with them")
    take_options(args, found.training["options"], folder)
    args.output = str(folder)
    return found


def named_folder(args: argparse.Namespace) -> Path:
    """Return the folder that ``--resume`` or ``--output`` names."""
    if args.resume is True:
        if args.output is None:
            raise CommandError("--resume needs the folder of a run: --resume DIR, or --output DIR beside it")
        return Path(args.output)
    folder = Path(args.resume)
    if folder.name == CHECKPOINT:
        folder = folder.parent
    if args.output is not None and Path(args.output) != folder:
        raise CommandError(f"--output {args.output} is another folder than that of --resume {args.resume}")
    return folder


def take_options(args: argparse.Namespace, kept: dict[str, Any], folder: Path) -> None:
    """Give ``args`` the options that a run has kept, unless the user has set them; such must be the same."""
    for name, value in kept.items():
        if name in args.given:
            here = getattr(args, name)
            if name not in RUNNING and here != value:
                flag = f"--{name.replace('_', '-')}"
                raise CommandError(f"{flag} {here} is not what the run in {folder} has: {value}; leave it away")
        elif hasattr(args, name):
            setattr(args, name, value)


def kept_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a checkpoint keeps of the arguments: a folder of images by its full path."""
    kept = {name: value for name, value in vars(args).items() if name not in NOT_KEPT}
    if args.data is not None and os.path.isdir(args.data):
        kept["data"] = os.path.abspath(args.data)
    return kept


def check_data(found: Checkpoint, data: Data) -> None:
    """Raise a ``CommandError`` if the images are not as many, or not of the classes, that a run began with."""
    assert found.training is not None
    if data.classes != found.classes or [len(data.train), len(data.test)] != found.training["images"]:
        before, after = found.training["images"], [len(data.train), len(data.test)]
        raise CommandError(
            f"these are not the images of the run: {after[0]} and {after[1]} to train and test on in "
            f"{len(data.classes)} classes; it began with {before[0]} and {before[1]} in {len(found.classes)}"
        )

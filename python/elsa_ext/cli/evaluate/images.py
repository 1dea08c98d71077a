"""The labelled images that a checkpoint is evaluated on: those that its training was tested on, or others."""

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

from timm.data import create_transform
from torchvision.transforms import Compose

from ..checkpoint import Checkpoint
from ..data.data_set import FILES, Files, Images, labelled, limited, load_data, locate, named, source_name, split
from ..data.folders import describe_left_out, find_classes, same_class
from ..data.images import load_image
from ..data.splits import find_split
from ..errors import CommandError
from ..train.resume import check_data

OWN = "the test images of the training"
"""How the images are described if they are known to be that."""


def find_images(checkpoint: Checkpoint, path: str, data: str | None) -> tuple[Images, str]:
    """Return the images to evaluate on, labelled by the checkpoint's classes, and a description.

    Args:
        checkpoint: Whose classes and input these must be.
        path: That of the checkpoint.
        data: What ``--data`` names; None for what the training had.

    Raises:
        CommandError: They are not there, or have other classes, or are not those of the training although they should.
    """
    options = kept_options(checkpoint)
    if data is None and not options:
        raise CommandError(f"{path} does not say what it was trained on: give --data FOLDER, or --data digits")
    if data is None or is_same(data, options.get("data")):
        return own_images(checkpoint, options), f"{source_name(options['data'])}, {OWN}"
    kind, root = locate(data)
    if kind == FILES:
        return folder(checkpoint, root, source_name(data))
    found = named(kind, root, checkpoint.input)
    if found.classes != checkpoint.classes:
        raise other_classes(f"--data {data}", found.classes, checkpoint.classes)
    own = options and locate(options["data"]) == (kind, root)
    return found.test, f"{source_name(data)}, {OWN if own else 'its test part'}"


def kept_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the training, as far as the checkpoint has kept them."""
    return {} if checkpoint.training is None else checkpoint.training["options"]


def is_same(data: str, trained_on: str | None) -> bool:
    """Tell whether ``data`` is the very folder of images that was trained on."""
    return trained_on is not None and os.path.isdir(data) and os.path.realpath(data) == os.path.realpath(trained_on)


def own_images(checkpoint: Checkpoint, options: dict[str, Any]) -> Images:
    """Return the images that the training was tested on, or raise a ``CommandError`` if they have changed since."""
    data = options["data"]
    if data is not None and os.path.isabs(data) and not os.path.isdir(data):
        raise CommandError(f"{data}, which the model was trained on, is not there; --data FOLDER names other images")
    found = load_data(argparse.Namespace(**{"limit": None, **options}, given=frozenset()), checkpoint.input)
    check_data(checkpoint, found)
    return found.test


def folder(checkpoint: Checkpoint, root: Path, name: str) -> tuple[Images, str]:
    """Return the test part of a folder of images, or of one without parts all that was not trained on."""
    left_out: Counter[str] = Counter()
    parts = find_split(root)
    test = parts[1] if parts else root
    found = find_classes(test, left_out)
    if left_out:
        print(describe_left_out(left_out))
    names = [one.name for one in found]
    same = {name: same_class(name, checkpoint.classes) for name in names}
    if sorted(map(str, same.values())) != sorted(checkpoint.classes):
        raise other_classes(str(test), names, checkpoint.classes)
    files = labelled(found, {name: checkpoint.classes.index(str(other)) for name, other in same.items()})
    described = f"{name}, folder {parts[1].name!r}" if parts else f"all of {name}"
    kept = None if parts else drawn_again(checkpoint, files)
    if kept is not None:
        files, described = kept, f"{name}, {OWN}"
    to_input = create_transform(**checkpoint.input)
    return Images(files, Compose([load_image, to_input])), described


def drawn_again(checkpoint: Checkpoint, files: Files) -> Files | None:
    """Return those to test on if these are all the files of the training, which may lie elsewhere now."""
    if checkpoint.training is None:
        return None
    options = kept_options(checkpoint)
    train, test = ([files[index] for index in part] for part in split([label for _, label in files], options["seed"]))
    if options.get("limit") is not None:
        train = limited(train, options["limit"])
    return test if [len(train), len(test)] == checkpoint.training["images"] else None


def other_classes(source: str, names: list[str], expected: list[str]) -> CommandError:
    """Return the error that tells in which classes some images differ from those of a checkpoint."""
    known = {same_class(name, expected) for name in names}
    unknown = [name for name in names if same_class(name, expected) is None]
    missing = [name for name in expected if name not in known]
    parts = [f"{what}: {', '.join(listed)}" for what, listed in (("unknown", unknown), ("missing", missing)) if listed]
    rest = "; ".join(parts) or "some are there twice, or in another order"
    return CommandError(f"{source} has other classes than the checkpoint, which knows {len(expected)}; {rest}")

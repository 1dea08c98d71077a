"""Which folders of a data set are to train and to test on."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import CommandError
from .folders import plain, subfolders

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
    "other": ("holdout", "unlabeled", "unlabelled"),
}
"""How people name the parts of a data set; of a test and a validation folder the latter is what we test on."""

FILLERS = {"data", "dataset", "folder", "image", "images", "img", "imgs", "set", "split"}


def find_split(root: Path) -> tuple[Path, Path] | None:
    """Return the folder to train and the folder to test on, or None if the folders in ``root`` are classes.

    They are the parts of a data set if one of them is named so and holds folders, or one is named as a training and
    another as a test folder, or all are named as parts. A single class may thus be called "train" or "test".

    Raises:
        CommandError: They are parts, but it is not clear which are meant.
    """
    folders = subfolders(root)
    parts = named_parts(folders)
    tests = parts.get("val", []) + parts.get("test", [])
    named = [folder for kind in parts.values() for folder in kind]
    meant = ("train" in parts and tests) or len(named) == len(folders) or any(subfolders(folder) for folder in named)
    if not (named and meant):
        refuse_nested(root, folders)
        return None
    names = ", ".join(folder.name for folder in folders)
    if "train" not in parts:
        raise CommandError(f"{root} holds {names}, but no folder to train on, which is expected to be named train")
    train = only(parts["train"], root, "train")
    if not tests:
        expected = "a folder to test on is expected beside it, named val, valid, validation, dev or test"
        others = [folder.name for folder in folders if folder != train]
        if others:
            raise CommandError(f"{root} holds {train.name} and {', '.join(others)}: {expected}")
        raise CommandError(
            f"{root} holds {train.name} alone: {expected}; --data {train} tests on a fifth of every class"
        )
    return train, only(parts.get("val") or tests, root, "test")


def refuse_nested(root: Path, folders: Sequence[Path]) -> None:
    """Raise a ``CommandError`` if one of the folders in ``root`` is parted itself: its parts would become one class."""
    for folder in folders:
        parts = named_parts(subfolders(folder))
        if "train" in parts and {"val", "test"} & {*parts}:
            raise CommandError(
                f"{folder} holds a folder to train and one to test on; {root}/train/<class>/* and {root}/val/<class>/*"
                f" are expected, or is --data {folder} meant?"
            )


def named_parts(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return those of the folders that are named as parts of a data set, by the kind of part.

    "Train", "training_set", "test1" and "valid-images" are. Names with other words in them, such as "seg_train", are if
    no name is without, they hold folders, and there is one to train and one to test on: "train_station" is a class.
    """
    parts = by_kind({folder: kinds_of(folder.name, strict=True) for folder in folders})
    if not parts:
        parts = by_kind({folder: kinds_of(folder.name, strict=False) for folder in folders if subfolders(folder)})
        if "train" not in parts or not {"val", "test"} & {*parts}:
            return {}
    return parts


def by_kind(kinds: dict[Path, set[str]]) -> dict[str, list[Path]]:
    """Return the folders that have one kind, by their kind."""
    parts: dict[str, list[Path]] = {}
    for folder, found in kinds.items():
        if len(found) == 1:
            [kind] = found
            parts.setdefault(kind, []).append(folder)
    return parts


def kinds_of(name: str, strict: bool) -> set[str]:
    """Return which parts of a data set the words of a name stand for; none if ``strict`` and there are other words."""
    words = re.findall(r"[^\W\d_]+", plain(name))
    words = [re.sub(r"(?<=.)(set|data|images)$", "", word) for word in words if word not in FILLERS]
    kinds = [{kind for kind, names in SPLITS.items() if word in names} for word in words]
    return set() if strict and not all(kinds) else {kind for found in kinds for kind in found}


def only(folders: Sequence[Path], root: Path, purpose: str) -> Path:
    """Return the one folder."""
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise CommandError(f"{root} holds several folders to {purpose} on: {names}; leave one of them there")
    return folders[0]

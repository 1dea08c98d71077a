"""Which files of a folder are images, and of which class."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import CommandError

LITTER = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),  # of macOS and Windows
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    *("@eadir", "#recycle", "@recycle", "@__thumb"),  # of network storage by Synology and QNAP
    "__pycache__",
}
"""What systems and programs leave in people's folders, in small letters; names that begin with a dot come on top."""

NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow recognises, but needs another program to decode."""


@dataclass
class Class:
    """A class: its name, and the paths of its images in the order of their names."""

    name: str
    images: list[str]


def composed(name: str) -> str:
    """Return a name with each accent and its letter in one character; macOS keeps them in two."""
    return unicodedata.normalize("NFC", name)


def plain(name: str) -> str:
    """Return a name composed and in small letters."""
    return composed(name).casefold()


def entries(folder: str | os.PathLike[str]) -> "list[os.DirEntry[str]]":
    """Return what is in a folder by name, without litter.

    Raises:
        CommandError: It is missing, or not a folder, or must not be read.
    """
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if not entry.name.startswith(".") and plain(entry.name) not in LITTER]
    except FileNotFoundError:
        raise CommandError(f"no such folder: {folder}") from None
    except NotADirectoryError:
        raise CommandError(f"{folder} is a file, not a folder of images") from None
    except PermissionError:
        raise CommandError(f"no permission to read the folder {folder}") from None
    return sorted(kept, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder."""
    return [Path(entry.path) for entry in entries(folder) if entry.is_dir()]


def find_classes(root: Path, left_out: Counter[str]) -> list[Class]:
    """Return the classes of ``root/<class>/**``, and count in ``left_out`` the files that are no images by their names.

    Raises:
        CommandError: There are less than two classes, or one is empty, or two names differ in their encoding alone.
    """
    extensions = image_extensions()
    above = {identity(folder) for folder in (root.absolute(), *root.absolute().parents)}
    classes = []
    for entry in entries(root):
        if entry.is_dir():
            classes.append(Class(entry.name, [*images_below(entry.path, extensions, left_out, above)]))
        elif is_image(entry, extensions):
            left_out["image outside of the class folders"] += 1
    check_classes(root, classes, left_out)
    return classes


def images_below(
    folder: str, extensions: set[str], left_out: Counter[str], above: set[tuple[int, int]]
) -> Iterator[str]:
    """Yield the images in a folder and in those in it; links are followed, but not to a folder that holds them."""
    here = identity(folder)
    if here in above:
        return
    for entry in entries(folder):
        if entry.is_dir():
            yield from images_below(entry.path, extensions, left_out, {*above, here})
        elif is_image(entry, extensions):
            yield entry.path
        else:
            left_out[kind_of_file(entry.name)] += 1


def is_image(entry: "os.DirEntry[str]", extensions: set[str]) -> bool:
    """Tell by the name whether an entry that is no folder is an image.

    Raises:
        CommandError: By its name it is one, but it is no file.
    """
    if extension(entry.name) not in extensions:
        return False
    if not entry.is_file():
        raise CommandError(f"{entry.path} is not a file, or is a link to nothing")
    return True


def identity(folder: str | Path) -> tuple[int, int]:
    """Return what is the same for two paths to one folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def extension(name: str) -> str:
    """Return a file's extension in small letters, such as ".jpg"."""
    return os.path.splitext(name)[1].lower()


def kind_of_file(name: str) -> str:
    """Return what to call a file that is left out: its extension, if it has an ordinary one."""
    found = extension(name)
    return found if re.fullmatch(r"\.[a-z0-9]{1,8}", found) else "without extension"


def image_extensions() -> set[str]:
    """Return the extensions of what Pillow, with the plugins that are registered with it, can decode."""
    registered = Image.registered_extensions()  # this loads the plugins, which OPEN is empty without
    formats = {*Image.OPEN, "MPO"} - NOT_DECODED
    return {name for name, kind in registered.items() if kind in formats}


def check_classes(root: Path, classes: Sequence[Class], left_out: Counter[str]) -> None:
    """Raise a ``CommandError`` if the classes are no set to learn from."""
    if not classes:
        raise CommandError(f"{root} holds no class folder; images are expected as {root}/<class>/*")
    empty = [found.name for found in classes if not found.images]
    if empty:
        described = f" ({describe_left_out(left_out)})" if left_out else ""
        raise CommandError(f"{root} has classes without an image: {', '.join(empty)}{described}")
    if len(classes) < 2:
        name = classes[0].name
        hint = f"; is --data {root / name} meant?" if len(subfolders(root / name)) > 1 else ""
        raise CommandError(f"{root} has one class, {name!r}; at least two are needed{hint}")
    [(name, count)] = Counter(composed(found.name) for found in classes).most_common(1)
    if count > 1:
        raise CommandError(f"{root} holds {name} twice, in two encodings of its accents; merge the two folders")


def refuse_telling_format(root: Path, classes: Sequence[Class]) -> None:
    """Raise a ``CommandError`` if some classes are GIFs alone and others have none.

    A GIF has 256 colours at most; a model would learn to see that, and not what is in the picture.
    """
    gifs = {found.name: [extension(image) == ".gif" for image in found.images] for found in classes}
    alone = [name for name, are_gifs in gifs.items() if all(are_gifs)]
    if alone and not all(map(any, gifs.values())):
        raise CommandError(
            f"{root} has classes of GIFs alone, {', '.join(alone)}, beside others without any: the 256 colours of a GIF"
            " would tell the class; convert them to the format of the others"
        )


def describe_left_out(left_out: Counter[str]) -> str:
    """Return how many files of which kind were left out, the most frequent first."""
    shown = [f"{count} {kind}" for kind, count in left_out.most_common(5)]
    more = ["others"] if len(left_out) > len(shown) else []
    total = left_out.total()
    return f"left out {total} file{'s' * (total > 1)}: {', '.join(shown + more)}"


def same_class(name: str, names: Sequence[str]) -> str | None:
    """Return that one of ``names`` which is ``name``: to the letter, or else encoded or capitalised otherwise."""
    for form in (str, composed, plain):
        found = [other for other in names if form(other) == form(name)]
        if len(found) == 1:
            return found[0]
    return None

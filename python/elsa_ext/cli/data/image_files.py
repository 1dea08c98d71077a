"""Which image files the words of a command line mean: files, folders, and lists on the standard input."""

import os
import sys
from collections.abc import Iterator, Sequence

from ..errors import CommandError
from .folders import entries, extension, identity, image_extensions

Named = tuple[str, CommandError | None]
"""A path, and why nothing can come of it, if that is known."""

STDIN = "-"


def named_images(words: Sequence[str]) -> Iterator[Named]:
    """Yield the images that the words name, in their order; ``-`` stands for the paths on the standard input."""
    for word in words:
        for path in listed_paths() if word == STDIN else [word]:
            if os.path.isdir(path):
                yield from images_in(path)
            else:
                yield path, None


def listed_paths() -> list[str]:
    """Return the paths on the standard input: one per line, or each with a NUL after it, if there is any NUL.

    Raises:
        CommandError: There are none.
    """
    content = b"" if sys.stdin is None else sys.stdin.buffer.read()
    lines = content.split(b"\0") if b"\0" in content else content.replace(b"\r\n", b"\n").split(b"\n")
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths:
        raise CommandError("the standard input names no image; one path per line is expected")
    return paths


def images_in(folder: str) -> Iterator[Named]:
    """Yield the images in a folder and in those in it, by the rules of ``elsa-ext train``."""
    found = False
    for named in walk(folder, image_extensions(), frozenset()):
        found = True
        yield named
    if not found:
        yield folder, CommandError(f"no image in the folder {folder}")


def walk(folder: str, extensions: set[str], above: frozenset[tuple[int, int]]) -> Iterator[Named]:
    """Yield the images below a folder; links are followed, but not to one of the folders ``above`` it."""
    try:
        here, inside = identity(folder), entries(folder)
    except CommandError as error:
        yield folder, error
        return
    if here in above:
        return
    for entry in inside:
        if entry.is_dir():
            yield from walk(entry.path, extensions, above | {here})
        elif extension(entry.name) in extensions:
            odd = None if entry.is_file() else CommandError(f"{entry.path} is not a file, or is a link to nothing")
            yield entry.path, odd

"""Writing a file so that nobody ever finds half of it."""

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import CommandError

PARTS = ".elsa-ext-*.part"
"""Names of files that are not complete yet."""


class Recorder(io.FileIO):
    """A new file that remembers why a write failed: torch.save reports a full disk by an error that does not say so."""

    def __init__(self, path: Path) -> None:
        self.failure: BaseException | None = None
        super().__init__(str(path), "x")

    def write(self, data: Any) -> int:
        """Write, as ``FileIO`` does."""
        try:
            return super().write(data)
        except BaseException as error:
            self.failure = error
            raise


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file beside ``path``, and put it in place once it is complete and on the disk.

    Whatever fails, what was at ``path`` before stays, and nothing else does. A link is followed, and what is no file,
    such as a pipe, is written to as it is.

    Raises:
        OSError: The file cannot be written; it is named as ``path``.
    """
    with part_beside(path) as part:
        if is_special(path):
            with path.open("wb") as file:
                write(file)
            return
        raw = Recorder(part)
        try:
            with io.BufferedWriter(raw) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        finally:
            if raw.failure is not None:
                raise raw.failure
        os.replace(part, os.path.realpath(path))
    sync_folder(part.parent)


def check_apart(output: Path, *inputs: str) -> None:
    """Raise a ``CommandError`` if what is to be written would take the place of one of the files that are read."""
    for name in inputs:
        if output.is_file() and os.path.exists(name) and output.samefile(name):
            raise CommandError(f"{output} is one of the files that are read, and would be lost")


def check_writable(path: Path) -> None:
    """Raise the ``OSError`` that ``write_whole`` would raise, as far as it can be foreseen."""
    with part_beside(path) as part:
        if not is_special(path):
            Recorder(part).close()
        elif path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@contextlib.contextmanager
def part_beside(path: Path) -> Iterator[Path]:
    """Give a new name in the folder of the file that ``path`` leads to; errors name ``path``, and nothing stays."""
    # Its length does not depend on that of the file's own name, which may be as long as names can be.
    target = Path(os.path.realpath(path))
    part = target.with_name(f".elsa-ext-{secrets.token_hex(8)}.part")
    try:
        if target.is_symlink():  # one that leads to itself
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        yield part
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def is_special(path: Path) -> bool:
    """Tell whether something is there that cannot be replaced by a file: a folder, a device, a pipe."""
    return path.exists() and not path.is_file()


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

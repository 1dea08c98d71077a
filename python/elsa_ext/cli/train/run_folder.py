"""The run folder: made for one run alone, and taken back if the run fails before its first epoch is over."""

import contextlib
import csv
import fcntl
import functools
import io
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from PIL import Image

from ..checkpoint import Checkpoint
from ..errors import CommandError
from ..files import PARTS, write_whole
from .report import Metrics, draw_curves

CHECKPOINT, METRICS, CURVES, SAMPLES = "checkpoint.pt", "metrics.csv", "curves.png", "samples"
CONTENTS = (CHECKPOINT, CURVES, METRICS, SAMPLES)
PATIENCE = 15.0
"""Seconds to wait for a run that is ending: processes that load images outlive one that was killed by some seconds."""
LONGEST_SOURCE = 200  # bytes of the data's name in the folder's, which can have 255 in all


class RunFolder:
    """A folder that one run writes into, as the only one."""

    def __init__(self, output: str | None, source: str, resume: bool = False) -> None:
        """Make and claim the folder, or go on in one; for the arguments and errors see ``new_run``."""
        self.begun = False
        """Whether the run has come to something that is to be kept."""
        self.made: list[Path] = []
        """Folders that were not there before, the outermost first."""
        self.lock = -1
        try:
            if output is None:
                self.path = self.make_default(source)
            else:
                self.path = Path(output)
                if not resume:
                    check_output(self.path)
                self.make(self.path)
            self.claim(resume)
        except BaseException:
            self.release()
            self.remove_made()
            raise

    def claim(self, resume: bool) -> None:
        """Become the one run in this folder, and remove what one before was killed while writing."""
        try:
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            lock(self.lock, PATIENCE if resume else 0.0)
            if resume:
                for part in self.path.glob(PARTS):
                    part.unlink(missing_ok=True)
                self.begun = (self.path / CHECKPOINT).exists()
            (self.path / METRICS).open("a" if resume else "x").close()
        except (FileExistsError, BlockingIOError):
            raise CommandError(f"another run has just started in {self.path}; choose another --output") from None

    def release(self) -> None:
        """Let other runs go on in this folder."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def make(self, path: Path) -> None:
        """Make a folder and those above it, where they are missing."""
        try:
            self.make_new(path)
        except FileNotFoundError:
            if path.parent == path:
                raise
            self.make(path.parent)
            self.make_new(path)
        except FileExistsError:
            pass  # claiming it tells whether it is a folder

    def make_new(self, path: Path) -> None:
        """Make a folder that must not be there yet."""
        path.mkdir()
        self.made.append(path)

    def make_default(self, source: str) -> Path:
        """Make and return ``runs/<source>-<date>-<time>``, or the first such name with -2, -3, … that is not taken."""
        while len(os.fsencode(source)) > LONGEST_SOURCE:
            source = source[:-1]
        name = f"{source}-{time.strftime('%Y%m%d-%H%M%S')}"
        self.make(Path("runs"))
        for number in itertools.count(1):
            path = Path("runs", name if number == 1 else f"{name}-{number}")
            with contextlib.suppress(FileExistsError):
                self.make_new(path)
                return path
        raise AssertionError

    def remove_made(self) -> None:
        """Remove the folders that were not there before, as far as they are empty."""
        with contextlib.suppress(OSError):
            for folder in reversed(self.made):
                folder.rmdir()

    def take_back(self) -> None:
        """Remove what the run has written."""
        for name in (CHECKPOINT, CURVES, METRICS):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
        shutil.rmtree(self.path / SAMPLES, ignore_errors=True)
        self.remove_made()

    def add_samples(self, samples: Mapping[str, Image.Image]) -> None:
        """Write images, by their file names, to try the classifier on."""
        for name, image in samples.items():
            (self.path / SAMPLES).mkdir(exist_ok=True)
            write_whole(self.path / SAMPLES / name, functools.partial(image.save, format="PNG"))

    def save(self, checkpoint: Checkpoint, rows: Sequence[Metrics]) -> None:
        """Write a checkpoint, then the rows of all epochs."""
        checkpoint.save(self.path / CHECKPOINT)
        self.write_metrics(rows)

    def write_metrics(self, rows: Sequence[Metrics]) -> None:
        """Write the rows of all epochs."""
        text = io.StringIO()
        table = csv.DictWriter(text, [field.name for field in fields(Metrics)], lineterminator="\n")
        table.writeheader()
        table.writerows(vars(row) for row in rows)
        write_whole(self.path / METRICS, lambda file: file.write(text.getvalue().encode()))

    def add_curves(self, title: str, rows: Sequence[Metrics]) -> None:
        """Draw the rows of all epochs."""
        draw_curves(self.path / CURVES, title, rows)

    def contents(self) -> list[str]:
        """Return what is there of what a run writes."""
        return [name for name in CONTENTS if (self.path / name).exists()]


def check_output(path: Path) -> None:
    """Raise a ``CommandError`` if ``path`` is no folder, or one that already holds what a run writes."""
    if os.path.lexists(path) and not path.is_dir():
        raise CommandError(f"--output {path} is not a folder")
    for name in CONTENTS:
        if os.path.lexists(path / name):
            raise CommandError(f"--output {path} already holds {name}; choose another folder, or move that away")


@contextlib.contextmanager
def new_run(output: str | None, source: str, resume: bool = False) -> Iterator[RunFolder]:
    """Make the folder of a new run; remove it if what follows fails before an epoch has been trained.

    Args:
        output: The folder: new, or without anything that a run writes. By default a new one, ``runs/<source>-<time>``.
        source: Names the data.
        resume: Whether the folder may hold a run, which this one goes on with.

    Raises:
        CommandError: ``output`` is no folder, or another run's.
        OSError: It cannot be made.
    """
    run = RunFolder(output, source, resume)
    try:
        yield run
    except BaseException:
        if not run.begun:
            run.take_back()
        raise
    finally:
        run.release()


def lock(folder: int, patience: float) -> None:
    """Lock an open folder until it is closed, waiting so many seconds for others.

    Raises:
        BlockingIOError: Another process has locked it. File systems that lock no folders let everybody.
    """
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        except OSError:
            return
        else:
            return

"""The run folder: made for one run alone, and taken back if the run fails before its first epoch is over."""

import contextlib
import csv
import functools
import io
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from PIL import Image

from .checkpoint import Checkpoint
from .errors import CommandError
from .files import write_whole
from .report import Metrics, draw_curves

CHECKPOINT, METRICS, CURVES, SAMPLES = "checkpoint.pt", "metrics.csv", "curves.png", "samples"
CONTENTS = (CHECKPOINT, CURVES, METRICS, SAMPLES)
LONGEST_SOURCE = 200  # bytes of the data's name in the folder's, which can have 255 in all


class RunFolder:
    """A folder that one run writes into, as the only one."""

    def __init__(self, output: str | None, source: str) -> None:
        """Make and claim the folder; for the arguments and errors see ``new_run``."""
        self.rows: list[Metrics] = []
        self.begun = False
        """Whether an epoch has been trained, so that there is something to keep."""
        self.made: list[Path] = []
        """Folders that were not there before, the outermost first."""
        try:
            if output is None:
                self.path = self.make_default(source)
            else:
                self.path = Path(output)
                check_output(self.path)
                self.make(self.path)
            try:
                (self.path / METRICS).open("x").close()  # of runs that start at the same time, one alone can do this
            except FileExistsError:
                raise CommandError(f"another run has just started in {self.path}; choose another --output") from None
        except BaseException:
            self.remove_made()
            raise

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

    def add_epoch(self, row: Metrics, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of an epoch, then its row."""
        self.begun = True
        checkpoint.save(self.path / CHECKPOINT)
        self.rows.append(row)
        self.write_metrics()

    def write_metrics(self) -> None:
        """Write the rows of all epochs."""
        text = io.StringIO()
        table = csv.DictWriter(text, [field.name for field in fields(Metrics)], lineterminator="\n")
        table.writeheader()
        table.writerows(vars(row) for row in self.rows)
        write_whole(self.path / METRICS, lambda file: file.write(text.getvalue().encode()))

    def add_curves(self, title: str) -> None:
        """Draw the rows of all epochs."""
        draw_curves(self.path / CURVES, title, self.rows)

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
def new_run(output: str | None, source: str) -> Iterator[RunFolder]:
    """Make the folder of a new run; remove it if what follows fails before an epoch has been trained.

    Args:
        output: The folder: new, or without anything that a run writes. By default a new one, ``runs/<source>-<time>``.
        source: Names the data.

    Raises:
        CommandError: ``output`` is no folder, or another run's.
        OSError: It cannot be made.
    """
    run = RunFolder(output, source)
    try:
        yield run
    except BaseException:
        if not run.begun:
            run.take_back()
        raise

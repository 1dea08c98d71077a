"""The standard streams, any of which may be closed, full, or a pipe that nobody reads any more."""

import contextlib
import io
import os
import sys

from .errors import CommandError


def prepare_streams() -> None:
    """Make the standard streams fit for text of any kind, shown line by line.

    Raises:
        CommandError: There is no standard output, and hence nowhere to put an answer.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes this number, the lowest free one, before a file of ours does
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    if sys.stdout is None:
        raise CommandError("the standard output is closed; send it to /dev/null if it is not wanted")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal can show every name, and whoever reads a pipe wants to see each epoch as it ends.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)


def settle_streams() -> None:
    """Flush both outputs; lead one that fails to nowhere, since Python would flush it again, and fail, when it ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())

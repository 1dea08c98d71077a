"""Standard streams that are closed, full, or lead to nobody: exit codes and at most one line, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import write_images

COMMAND = f"{sys.executable} -m elsa_ext.cli"
FULL = "No space left on device"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        # With PYTHONUNBUFFERED, as in many containers, errors come at the write, otherwise when a buffer is flushed.
        ("elsa-ext info >/dev/full", 2, f"elsa-ext info: {FULL}\n"),
        ("PYTHONUNBUFFERED=1 elsa-ext info >/dev/full", 2, f"elsa-ext info: {FULL}\n"),
        ("elsa-ext --help >/dev/full", 2, f"elsa-ext: {FULL}\n"),
        ("PYTHONUNBUFFERED=1 elsa-ext --version >/dev/full", 2, f"elsa-ext: {FULL}\n"),
        ("elsa-ext info >&-", 2, "elsa-ext: the standard output is closed; send it to /dev/null if it is not wanted\n"),
        ("elsa-ext info >&- 2>&-", 2, ""),
        ("elsa-ext info <&- 2>&-", 0, ""),
        ("elsa-ext info 2>/dev/full", 0, ""),
        ("elsa-ext fly 2>&-", 2, ""),
        ("elsa-ext fly 2>/dev/full", 2, ""),
        ("elsa-ext classify no.pt no.png 2>/dev/full", 2, ""),
        ("elsa-ext classify no.pt no.png 2>&-", 2, ""),
        ("elsa-ext info | true; exit ${PIPESTATUS[0]}", 1, ""),
    ],
    ids=lambda value: str(value)[:60],
)
def test_streams(command: str, code: int, error: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = f'elsa-ext() {{ {COMMAND} "$@"; }}; {command}'
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (code, error)
    assert code == 0 or process.stdout == ""  # where no error goes in place of a closed stderr


OPENS = """
import os, sys
from elsa_ext.cli.streams import prepare_streams
prepare_streams()
sys.exit(os.open("/dev/null", os.O_RDONLY) < 3)
"""


@pytest.mark.thorough
def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    # What prints to a number, as libraries do, would print into it.
    for closed in (f"{sys.executable} - 2>&- <<'END'\n{OPENS}\nEND", f"{sys.executable} -c '{OPENS}' 2>&- <&-"):
        assert subprocess.run(["bash", "-c", closed]).returncode == 0


@pytest.mark.thorough
def test_no_progress_bar_in_a_file(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 2)
    # Without stdin, and with a stdout that is no terminal either.
    command = f"{COMMAND} train --data {images} --epochs 2 --output {tmp_path}/run <&- 2>{tmp_path}/err"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (process.returncode, (tmp_path / "err").read_text()) == (0, "")
    first_words = [line.split()[0] for line in process.stdout.splitlines()]
    assert first_words == ["data", "model", "device", "epoch", "1", "2", "test", "written"]

"""The script for machines with a GPU goes on after a step that fails, and ends with what failed."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A Python that writes down how it is called, and fails where that matches $BROKEN.
PYTHON = """#!/bin/bash
echo "$*" >> "$CALLS"
case "$*" in
  *capability*) echo 90 ;;
  *device_name*) echo a-gpu ;;
esac
[[ "$*" =~ $BROKEN ]] && exit 3
exit 0
"""
SANITIZER = """#!/bin/bash
while [ "$1" != "$PYTHON" ]; do shift; done
"$@"
"""
STEPS = (
    *("pip install", "smoke.xml", "kernel_times.py", "tests.xml", "sanitize_gpu"),
    *("bench op --op neighborhood_attention", "bench module --module NeighborhoodAttention"),
    *("bench op --op ghost_head hadamard_attention", "bench module --module ELSA"),
    "bench op --op neighborhood_logits",
)


@pytest.mark.parametrize(
    ("seconds", "broken", "failed", "left_out"),
    [
        (0, "no such call", [], ()),
        (0, "-m pytest", ["smoke", "tests"], ()),
        (0, "kernel_times", ["times of the kernels"], ()),
        (0, "sanitize_gpu|module ELSA", ["bench module ELSA", "memcheck", "racecheck"], ()),
        (0, "-m pip install", ["build"], STEPS[1:]),
        (0, "cli info", ["build"], STEPS[1:]),
        (480, "no such call", [], STEPS[5:]),
    ],
)
def test_every_step_runs(
    tmp_path: Path, seconds: int, broken: str, failed: list[str], left_out: tuple[str, ...]
) -> None:
    """With a call that is ``broken``, when ``seconds`` have passed already."""
    for name, script in (("python", PYTHON), ("compute-sanitizer", SANITIZER)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    process = subprocess.run(
        [ROOT / ".github/scripts/gpu_check.sh"],
        capture_output=True,
        text=True,
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "OUT": str(tmp_path / "results"),
            "CALLS": str(calls),
            "BROKEN": broken,
            "SECONDS": str(seconds),  # where bash begins to count
        },
    )
    called = calls.read_text()
    assert [step for step in STEPS if step not in called] == list(left_out)
    said = [f"FAILED: {step} (exit code 3)" for step in failed] or ["All steps passed"]
    assert process.stdout.splitlines()[-len(said) :] == said
    assert process.returncode == (1 if failed else 0)
    (log,) = (tmp_path / "results").glob("a-gpu-*-log.txt")
    assert log.read_text() == process.stdout

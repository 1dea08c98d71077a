"""The command line lets OpenMP's threads sleep; a program that imports the package decides for itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from elsa_ext import _openmp

SCRIPT = "import sys; from elsa_ext.cli import main; sys.exit(main())"


def spin_count(*command: str, **settings: str) -> str:
    """Return how often a thread of this process looks for work before it sleeps, as torch's OpenMP has it."""
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "1"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)
    environment |= settings
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    counts = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", process.stderr)
    if not counts:
        pytest.skip("this torch has another OpenMP than GCC's")
    return counts[0]


@pytest.fixture
def script(tmp_path: Path) -> str:
    """What pip makes of the entry point."""
    (tmp_path / "elsa-ext").write_text(SCRIPT)
    return str(tmp_path / "elsa-ext")


@pytest.mark.thorough
def test_command_line(script: str) -> None:
    for command in (["-m", "elsa_ext"], ["-m", "elsa_ext.cli"], [script]):
        assert spin_count(sys.executable, *command, "--version") == "0"


@pytest.mark.thorough
def test_the_user_decides(script: str) -> None:
    assert spin_count(sys.executable, script, "--version", OMP_WAIT_POLICY="active") != "0"
    assert spin_count(sys.executable, script, "--version", GOMP_SPINCOUNT="77") == "77"


@pytest.mark.thorough
def test_library() -> None:
    assert spin_count(sys.executable, "-c", "import elsa_ext") != "0"


@pytest.mark.parametrize(
    ("arguments", "process", "expected"),
    [
        (["/usr/bin/elsa-ext", "info"], ["python", "/usr/bin/elsa-ext", "info"], True),
        (["-m", "info"], ["python", "-um", "elsa_ext.cli", "info"], True),
        (["-m", "info"], ["python", "-melsa_ext.cli", "info"], True),
        (["-m", "info"], ["python", "-m", "elsa_ext", "info"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["train.py", "elsa_ext.cli"], ["python", "train.py", "elsa_ext.cli"], False),
        (["-c"], ["python", "-c"], False),
        ([""], ["python"], False),
        ([], ["embedded"], False),
    ],
)
def test_what_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], process: list[str], expected: bool
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "orig_argv", process)
    assert _openmp.is_command_line() is expected

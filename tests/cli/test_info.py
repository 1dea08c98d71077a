"""``elsa-ext info``, ``--help`` and ``--version``."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable

import elsa_ext
import pytest
import torch

from .conftest import Result

Command = Callable[..., Result]

CORE_ONLY = """
import sys
for name in ("timm", "torchvision", "sklearn", "matplotlib", "tqdm", "PIL"):
    sys.modules[name] = None
from elsa_ext.cli import main
sys.exit(main(["info"]))
"""


def test_info(command: Command) -> None:
    result = command("info")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len({re.match(r"[^:]+: +", line).end() for line in lines}) == 1  # the values stand in one column
    facts = dict(re.split(r": +", line, maxsplit=1) for line in lines)
    assert facts["elsa-ext"] == elsa_ext.__version__
    assert facts["torch"] == torch.__version__
    assert facts["python"].startswith(platform.python_version())
    assert facts["torch threads"] == str(torch.get_num_threads())
    assert elsa_ext.build_info().items() - {("version", elsa_ext.__version__)} <= facts.items()


@pytest.mark.thorough
def test_info_without_optional_packages() -> None:
    process = subprocess.run([sys.executable, "-c", CORE_ONLY], capture_output=True, text=True, check=True)
    assert "elsa-ext:" in process.stdout


@pytest.mark.thorough
def test_info_with_a_wrong_instruction_set() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "elsa_ext.cli", "info"],
        capture_output=True,
        text=True,
        env={**os.environ, "ELSA_CPU_CAPABILITY": "abacus"},
    )
    assert process.returncode == 2
    assert process.stderr.startswith("elsa-ext info: ") and process.stderr.count("\n") == 1
    assert "abacus" in process.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["classify"],
        ["attend"],
        ["bench"],
        ["bench", "op"],
        ["bench", "module"],
        ["bench", "model"],
        ["info"],
    ],
    ids=" ".join,
)
def test_help(command: Command, arguments: list[str]) -> None:
    result = command(*arguments, "--help")
    assert result.code == 0
    assert result.out.startswith(" ".join(["usage: elsa-ext", *arguments]))


def test_version(command: Command) -> None:
    assert command("--version").out == f"elsa-ext {elsa_ext.__version__}\n"

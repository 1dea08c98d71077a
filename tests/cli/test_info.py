"""``elsa-ext info``, ``--help`` and ``--version``."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import elsa_ext
import pytest
import torch
from elsa_ext.cli.completion.words import read_parser
from elsa_ext.cli.parser import build_parser

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


def test_info_as_json(command: Command) -> None:
    lines = command("info").out.splitlines()
    facts = json.loads(command("info", "--json").out)
    assert [[*fact] for fact in facts.items()] == [re.split(r": +", line, maxsplit=1) for line in lines]


@pytest.mark.thorough
def test_module() -> None:
    for name in ("elsa_ext", "elsa_ext.cli"):
        process = subprocess.run([sys.executable, "-m", name, "--version"], capture_output=True, text=True, check=True)
        assert process.stdout == f"elsa-ext {elsa_ext.__version__}\n"


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
    [command.words for command in read_parser(build_parser()).all()],
    ids=" ".join,
)
def test_help(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments, "--help")
    assert result.code == 0
    assert result.out.startswith(" ".join(["usage: elsa-ext", *arguments]))
    examples = result.out.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    for example in examples:  # after what sets the stage, each is a call of this command that the parser takes
        words = shlex.split(
            re.split(r"elsa-ext(?= )", example.split("   ")[0], maxsplit=1)[1].split(">")[0].rstrip(")")
        )
        named = build_parser().parse_args(words)
        assert [*words[: len(arguments)]] == [*arguments] and named.command
    assert examples


def test_version(command: Command) -> None:
    assert command("--version").out == f"elsa-ext {elsa_ext.__version__}\n"

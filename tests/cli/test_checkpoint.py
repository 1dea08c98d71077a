"""A checkpoint that is not what was written is refused."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from elsa_ext.cli.checkpoint import checksum

from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
DAMAGED = "is damaged: what it holds is not what its checksum was made of"


@pytest.fixture
def content(trained: Path) -> dict[str, Any]:
    return torch.load(trained / "checkpoint.pt", weights_only=True)


def test_zeroed_bytes(command: Command, trained: Path, picture: Path, tmp_path: Path) -> None:
    whole = (trained / "checkpoint.pt").read_bytes()
    for place in (len(whole) // 4, len(whole) // 2):
        assert whole[place : place + 100].strip(b"\0")
        (tmp_path / "x.pt").write_bytes(whole[:place] + bytes(100) + whole[place + 100 :])
        assert_refused(command("classify", tmp_path / "x.pt", picture), f"x.pt {DAMAGED}")


def test_one_bit_of_a_weight(command: Command, trained: Path, picture: Path, tmp_path: Path) -> None:
    whole = bytearray((trained / "checkpoint.pt").read_bytes())
    weight = torch.load(trained / "checkpoint.pt", weights_only=True)["state_dict"]["head.fc.weight"]
    whole[whole.index(weight.numpy().tobytes()) + 5] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    assert_refused(command("classify", tmp_path / "x.pt", picture), f"x.pt {DAMAGED}")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["red", "blue"]},
        {"epoch": 4},
        {"input": {"input_size": (3, 32, 32)}},
        {"sha256": "0" * 64},
        {"sha256": None, "sha257": "0" * 64},
    ],
    ids=str,
)
def test_any_field(
    command: Command, content: dict[str, Any], picture: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    torch.save({**content, **change}, tmp_path / "x.pt")
    assert_refused(command("classify", tmp_path / "x.pt", picture), f"x.pt {DAMAGED}")


def test_checkpoint_without_checksum(
    command: Command, content: dict[str, Any], trained: Path, picture: Path, tmp_path: Path
) -> None:
    del content["sha256"]
    torch.save(content, tmp_path / "old.pt")
    assert command("classify", tmp_path / "old.pt", picture) == command("classify", trained / "checkpoint.pt", picture)


def test_change_on_purpose(
    command: Command, trained: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(trained / "checkpoint.pt", "checkpoint.pt")
    exec(code, {})
    result = command("classify", "renamed.pt", picture)
    assert (result.code, result.err) == (0, "")
    assert "tulip" in result.out and "blue" not in result.out


def test_what_a_checksum_tells_apart() -> None:
    contents = [
        {"a": torch.zeros(6)},
        {"b": torch.zeros(6)},
        {"a": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(6, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0, 0, 0, 0, -0.0])},
        {"a": torch.zeros(3), "b": torch.zeros(3)},
        {"a": {"b": torch.zeros(6)}},
        {"a": ["bc", "d"]},
        {"a": ["b", "cd"]},
        {"a": [["b"], "cd"]},
        {"a": [["b", "cd"]]},
        {"a": 1},
        {"a": "1"},
        {"a": 1.0},
        {"a": None},
        {"a": True},
        {},
    ]
    assert len({checksum(content) for content in contents}) == len(contents)


def test_what_a_checksum_does_not_mind(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 4, 5)
    content = {
        os.fsdecode(b"\xe9"): images.to(memory_format=torch.channels_last),
        "slice": images[:, ::2],
        "bfloat16": images.bfloat16().requires_grad_(),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 3),
        "flags": torch.tensor([True]),
        "mean": (0.1, 1 / 3, float("nan")),
    }
    torch.save(content, tmp_path / "x.pt")
    assert checksum(torch.load(tmp_path / "x.pt", weights_only=True)) == checksum(content)
    assert checksum(images) == checksum(images.to(memory_format=torch.channels_last))

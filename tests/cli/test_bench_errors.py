"""``elsa-ext bench``: what it refuses, and what it does without."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import elsa_ext
import pytest
import torch
from elsa_ext.cli.bench import command as bench_command
from elsa_ext.cli.bench import measure, neighbours, op_elsa
from torch import Tensor

from .conftest import SMALL_BENCH as SMALL
from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("small_floors")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--heads", "5"], ["--heads 5", "96 channels"]),
        (["--kernel-size", "4"], ["--kernel-size", "odd", "4"]),
        (["--size", "56x"], ["--size", "'56x'"]),
        (["--size", "1x2x3"], ["--size", "'1x2x3'"]),
        (["--size", "0"], ["--size", "'0'"]),
        (["--channels", "2", "--heads", "1"], ["--channels 2"]),
        (["--stride", "57"], ["--stride 57", "56 x 56"]),
        (["--batch", "0"], ["--batch", "'0'"]),
        (["--dtype", "int8"], ["--dtype", "'int8'", "bfloat16"]),
        (["--preset", "swin-t-9"], ["--preset", "'swin-t-9'", "volo-d1"]),
        (["--baselines", "cudnn"], ["--baselines", "'cudnn'", "depthwise"]),
        (["--repeats", "0"], ["--repeats", "'0'"]),
        (["--device", "toaster"], ["--device toaster"]),
        (["--device", "meta"], ["--device meta"]),
        (["--tolerance", "-1"], ["--tolerance", "'-1'"]),
        (["--json", "nowhere/x.json"], ["--json nowhere/x.json", "no such folder: nowhere"]),
        (["--json", "."], ["--json . is a folder"]),
        (["--plot", "nowhere/x.png"], ["--plot nowhere/x.png", "no such folder"]),
        (["--plot", "x", "--json", "x"], ["--json and --plot are the same file"]),
        (["--plot", "x", "--json", "/proc/self/cwd/x"], ["--json and --plot are the same file"]),
        (["--json", ""], ["--json", "''"]),
        (["--compare", ""], ["--compare", "''"]),
        (["--device", ""], ["--device", "''"]),
        (["--json", "y" * 256], ["File name too long"]),
        (["--plot", "/proc/x"], ["/proc/x: No such file or directory"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_options(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    assert_refused(command("bench", "op", *arguments), "elsa-ext bench", *parts)
    assert list(tmp_path.iterdir()) == []


def test_model_options(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    assert_refused(command("bench", "model", "--model", "elsa_swin_mirco"), "'elsa_swin_mirco'", "elsa_swin_micro")
    assert_refused(command("bench", "model", "--baseline", "swim"), "unknown model 'swim'")
    assert_refused(command("bench"), "WHAT")
    assert_refused(command("bench", "everything"), "'everything'", "'op'", "'module'", "'model'")


@pytest.mark.parametrize(
    ("kind", "more", "missing"),
    [("op", [], "tqdm"), ("op", ["--plot", "x.png"], "matplotlib"), ("module", [], "timm"), ("model", [], "timm")],
)
def test_package_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch, kind: str, more: list[str], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = command("bench", kind, *more)
    assert_refused(
        result, f"elsa-ext bench: {missing} not installed: pip install torch=={version('torch')} {missing}\n"
    )


def test_baseline_that_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, before = 0, []
    original = measure.run_rounds

    def rounds(*arguments: Any) -> Any:
        before.append(calls)
        return original(*arguments)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if torch.is_grad_enabled():
            raise NotImplementedError("no backward here. Do without\nit")
        if before:
            raise RuntimeError("tired")
        return query

    monkeypatch.setattr(measure, "run_rounds", rounds)
    monkeypatch.setitem(neighbours.ATTENDS, "flex", lambda *_: attend)
    arguments = ("--op", "ghost_head", "--backprop", "--baselines", "flex")
    result = command("bench", "op", *SMALL, *arguments)
    assert (result.code, result.err) == (0, "")
    assert "absent: FlexAttention forward + backward (no backward here)\n" in result.out
    assert "absent: FlexAttention forward (tired)\n" in result.out
    assert result.out.count("FlexAttention") == 2
    assert calls == before[0] + 1  # and was left alone from then on


def test_ours_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. you tried to allocate 7 bytes. Sorry")

    monkeypatch.setattr(elsa_ext, "ghost_head", fail)
    result = command("bench", "op", *SMALL, "--baselines", "none")
    assert_refused(result, "elsa-ext bench: ghost_head, custom: elsa_ext (you tried to allocate 7 bytes)")


def test_tensors_that_do_not_fit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr(op_elsa, "random_map", fail)
    assert_refused(command("bench", "op", *SMALL, "--baselines", "none"), "ghost_head, custom: no memory")


def test_interrupted(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original, measured = bench_command.measure, []

    def interrupt(comparison: Any, *arguments: Any) -> Any:
        if measured:
            raise KeyboardInterrupt
        measured.append(comparison)
        return original(comparison, *arguments)

    monkeypatch.setattr(bench_command, "measure", interrupt)
    result = command("bench", "op", *SMALL, "--baselines", "none", "--json", tmp_path / "half.json")
    assert (result.code, result.err) == (130, "elsa-ext bench: interrupted\n")
    # What had been measured until then is there, and only that.
    assert [found["problem"]["op"] for found in json.loads((tmp_path / "half.json").read_text())["comparisons"]] == [
        "ghost_head"
    ]

"""A run that is stopped, killed or out of disk goes on to the same bits as one that is not."""

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsa_ext.cli.checkpoint import Checkpoint, load, load_model
from elsa_ext.cli.signals import STOPPING
from elsa_ext.cli.train import resume, run_folder
from elsa_ext.cli.train.loop import Training
from elsa_ext.cli.train.run_folder import RunFolder
from elsa_ext.cli.train.state import generators, set_generators

from .conftest import Result, write_images
from .test_errors import assert_refused
from .test_train import metrics

Command = Callable[..., Result]

# Everything that has a state: an optimizer, a schedule, an average, a scaler, and generators of all kinds.
THOROUGH = (
    *("--image-size", 8, "--batch-size", 4, "--epochs", 2, "--accumulate", 2, "--clip-grad", 1, "--ema", 0.9),
    *("--amp", "fp16", "--drop-path", 0.3, "--mixup", 0.5, "--cutmix", 0.5, "--erasing", 0.5, "--smoothing", 0.1),
    *("--auto-augment", "rand-m9-mstd0.5-inc1"),
)

# Imports once and forks for every run: to start a Python takes longer than to train so little.
KILLER = """
import os, random, signal, sys, time
import elsa_ext.models
import elsa_ext.cli.train.command
from elsa_ext.cli import main
from elsa_ext.cli.checkpoint import load

def start(*arguments):
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    small = ("--image-size", "8", "--batch-size", "4", "--epochs", "30", "--drop-path", "0.3", "--data", sys.argv[1])
    os._exit(main(("train", *small, *arguments)))

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

begin = time.monotonic()
assert end(start("--output", "whole")) == 0
whole, draw, kills, runs = time.monotonic() - begin, random.Random(5), 0, 0
while kills < 20:
    code = -9
    while code == -9:
        child = start("--output", f"run{runs}", "--resume")
        if kills < 20:
            time.sleep(draw.random() * whole / 6)
            os.kill(child, signal.SIGKILL)
        code = end(child)
        kills += code == -9
        print(code)
        if os.path.exists(f"run{runs}/checkpoint.pt"):
            load(f"run{runs}/checkpoint.pt")
    runs += 1
"""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("resumed") / "images", "red tan", 12)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """The signals as a process has them by default."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def assert_same(run: Path, other: Path) -> None:
    """The same bits in everything but the time that it took."""
    found, expected = (load(str(path / "checkpoint.pt")) for path in (run, other))
    assert (found.epoch, found.classes) == (expected.epoch, expected.classes)
    timed = ("seconds", "images_per_second")
    for name in metrics(other)[0]:
        if name not in timed:
            assert [row[name] for row in metrics(run)] == [row[name] for row in metrics(other)], name
    assert_equal(found.state_dict, expected.state_dict)
    assert found.training is not None and expected.training is not None
    for part in ("model", "optimizer", "scaler", "generators"):
        assert_equal(found.training[part], expected.training[part])


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_equal(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_equal(*pair)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    else:
        assert found == expected


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Send this process a signal in the course of a step, as late as it can be."""
    done: list[int] = []

    def update(training: Training) -> None:
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), number)
        original(training)

    original = Training.update
    monkeypatch.setattr(Training, "update", update)


@pytest.fixture(scope="session")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from elsa_ext.cli import main

    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert main([str(word) for word in ("train", "--data", images, *THOROUGH, "--output", run)]) == 0
    return run


@pytest.mark.thorough
@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_stopped_in_the_middle(
    command: Command, images: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        result = command("train", "--data", images, *THOROUGH, "--output", "run")
    assert (result.code, result.err) == (143, "elsa-ext train: stopped by SIGTERM\n")
    assert "elsa-ext train --resume run goes on with it" in result.out
    epoch, step = divmod(steps - 1, 5)
    assert load("run/checkpoint.pt").epoch == epoch
    torch.manual_seed(99)  # what the generators were at does not matter
    result = command("train", "--resume", "run")
    assert (result.code, result.err) == (0, "")
    assert f"in epoch {epoch + 1} of 2, after {step + 1} of 5 steps" in result.out
    assert_same(Path("run"), uninterrupted)
    before = load("run/checkpoint.pt")
    again = command("train", "--resume", "run", "--workers", 0)
    assert again.code == 0 and "nothing is left to do" in again.out
    assert_equal(load("run/checkpoint.pt").training, before.training)


@pytest.mark.thorough
def test_stopped_while_testing(
    command: Command, images: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def test(training: Training, bar: Any) -> tuple[float, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(training, bar)

    original = Training.test
    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", test)
        assert command("train", "--data", images, *THOROUGH, "--output", "run").code == 143
    assert load("run/checkpoint.pt").epoch == 0
    assert command("train", "--resume", "run/checkpoint.pt").code == 0
    assert_same(Path("run"), uninterrupted)


@pytest.mark.slow
def test_killed_at_random(images: Path) -> None:
    """Whenever that is, a checkpoint can be read, and the run goes on to the bits of one that nobody killed."""
    script = subprocess.run([sys.executable, "-c", KILLER, str(images)], capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    codes = [int(code) for code in script.stdout.split()]
    assert codes.count(-signal.SIGKILL) == 20 and {*codes} == {-signal.SIGKILL, 0}
    for number in range(codes.count(0)):
        assert_same(Path(f"run{number}"), Path("whole"))
        assert not list(Path(f"run{number}").glob(".*"))


def test_all_generators_go_on() -> None:
    def draw() -> list[float]:
        return [random.random(), np.random.rand(), float(torch.rand(()))]

    state = generators(torch.device("cpu"))
    expected = draw()
    set_generators(state, torch.device("cpu"))
    assert draw() == expected


def test_killed_before_the_first_epoch(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is something to go on from as soon as there is a run folder."""

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(RunFolder, "take_back", lambda _: None)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "learn", kill)
        command("train", "--data", images, "--image-size", 8, "--epochs", 1, "--output", "run")
    Path("run/.elsa-ext-0123456789abcdef.part").write_text("half")
    assert command("train", "--resume", "run").code == 0
    assert sorted(os.listdir("run")) == ["checkpoint.pt", "curves.png", "metrics.csv"]


def test_begun_if_there_is_none(command: Command, images: Path) -> None:
    arguments = ("train", "--data", images, "--image-size", 8, "--epochs", 1, "--output", "run", "--resume")
    Path("run").mkdir()
    Path("run/metrics.csv").touch()  # of a run that was killed as soon as it had begun
    assert command(*arguments).code == 0
    result = command(*arguments)
    assert result.code == 0 and "nothing is left to do" in result.out
    assert_refused(command(*arguments, "--epochs", 2), "--epochs 2 is not what the run in run has: 1")


@pytest.fixture
def stopped(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, signal.SIGTERM)
        command("train", "--data", images, "--image-size", 8, "--epochs", 1, "--output", "run")
    return Path("run")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--resume"], ["--resume needs the folder of a run"]),
        (["--resume", "nowhere"], ["--resume nowhere: no such folder"]),
        (["--resume", "."], ["no such file: checkpoint.pt"]),
        (["--resume", "run", "--output", "other"], ["--output other is another folder"]),
        (["--resume", "run", "--lr", "0.1"], ["--lr 0.1 is not what the run in run has: 0.002"]),
        (["--resume", "run", "--epochs", "15"], ["--epochs 15 is not what the run in run has: 1"]),
        (["--resume", "run", "--data", "digits"], ["these are not the images of the run"]),
    ],
    ids=" ".join,
)
def test_refused(command: Command, stopped: Path, arguments: list[str], parts: list[str]) -> None:
    before = (stopped / "checkpoint.pt").read_bytes()
    assert_refused(command("train", *arguments), *parts)
    assert (stopped / "checkpoint.pt").read_bytes() == before


@pytest.mark.thorough
def test_spec_and_limit(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another operator in place of ELSA, and fewer images, of a run that goes on, and of its checkpoint."""
    small = ("train", "--data", images, "--image-size", 8, "--epochs", 1, "--batch-size", 4)
    arguments = (
        *small,
        "--spec",
        "rb none  neighborhood heads=C",
        "--kernel-size",
        3,
        "--limit",
        6,
        "--drop-path",
        0.3,
        "--output",
        "run",
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert command(*arguments).code == 143
    result = command("train", "--resume", "run")
    assert result.code == 0 and "12 images to train on" in result.out
    assert "elsa_swin_micro, rb none neighborhood heads=C: 0." in result.out
    checkpoint, model = load_model("run/checkpoint.pt")
    assert checkpoint.model_kwargs["spec"] == "rb none neighborhood heads=C"
    assert checkpoint.model_kwargs["drop_path_rate"] == 0.3
    assert [list(layer.r_bias.shape[1:]) for layer in model.modules() if hasattr(layer, "r_bias")] == [[3, 3]] * 3
    assert command("classify", "run/checkpoint.pt", images / "red" / "0.png").code == 0
    again = command("train", "--resume", "run", "--spec", "elsa")
    assert_refused(again, "--spec hadamard softmax neighborhood add is not what the run in run has: rb none")


def test_weights_alone(command: Command, trained: Path) -> None:
    """A checkpoint of an earlier version classifies, but has nothing to go on from."""
    found = load(str(trained / "checkpoint.pt"))
    Path("old").mkdir()
    Checkpoint(**{**vars(found), "training": None}).save(Path("old/checkpoint.pt"))
    content = torch.load("old/checkpoint.pt", weights_only=True)
    assert {*content} == {"model", "model_kwargs", "classes", "input", "epoch", "metrics", "state_dict", "sha256"}
    assert_refused(command("train", "--resume", "old"), "holds weights alone: --pretrained old/checkpoint.pt")


def test_one_run_at_a_time(command: Command, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "PATIENCE", 0.0)
    first = RunFolder("run", "x", resume=True)
    assert_refused(command("train", "--resume", "run"), "another run has just started in run")
    first.release()
    assert command("train", "--resume", "run").code == 0


@pytest.mark.thorough
def test_full_disk_on_the_way(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint before is still there, and goes on to what a disk with room would have given."""
    arguments = ("train", "--data", images, "--image-size", 8, "--epochs", 2)
    assert command(*arguments, "--output", "whole").code == 0

    def save(checkpoint: Checkpoint, path: Path) -> None:
        if checkpoint.epoch == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        original(checkpoint, path)

    original = Checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save)
        result = command(*arguments, "--output", "run")
    assert result.code == 1
    assert result.err == (
        "elsa-ext train: run/checkpoint.pt: No space left on device; what was written before is still there, and "
        "elsa-ext train --resume run goes on from it\n"
    )
    assert load("run/checkpoint.pt").epoch == 1
    assert command("train", "--resume", "run").code == 0
    assert_same(Path("run"), Path("whole"))


def test_options_that_a_resumed_run_may_change(stopped: Path) -> None:
    found = load(str(stopped / "checkpoint.pt"))
    assert found.training is not None
    kept = found.training["options"]
    assert kept["epochs"] == 1 and kept["device"] is None and os.path.isabs(kept["data"])
    assert not {*kept} & resume.NOT_KEPT

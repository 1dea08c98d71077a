"""Several processes give what one gives, to rounding, and leave as much behind when they are stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from elsa_ext.cli import main
from elsa_ext.cli.checkpoint import load

from .conftest import write_images
from .test_resume import assert_same
from .test_train import metrics

pytestmark = pytest.mark.slow

SETTINGS = ("--image-size", "8", "--batch-size", "8", "--clip-grad", "1", "--ema", "0.9", "--layer-decay", "0.8")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("parallel") / "images", "red tan", 13)


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    arguments = ("train", "--data", str(images), *SETTINGS, "--epochs", "3", "--device", "cpu", "--output", str(run))
    assert main(arguments) == 0
    return run


# Stops both processes by torchrun, in the middle of a step.
STOPPING = """
import os, signal, sys, time
import elsa_ext.models
from elsa_ext.cli import main
from elsa_ext.cli.train.loop import Training

def update(training):
    done.append(1)
    if len(done) == 5 and training.processes.rank == 0:
        os.kill(os.getppid(), signal.SIGTERM)
        while not training.stop:
            time.sleep(0.01)
    original(training)

original, done = Training.update, []
Training.update = update
sys.exit(main())
"""


def torchrun(*arguments: object, program: tuple[object, ...] = ("-m", "elsa_ext.cli")) -> "subprocess.Popen[str]":
    """Train in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    return subprocess.Popen(
        [*command, "--rdzv-endpoint", "localhost:0", *map(str, program), "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(("parallel", "accumulate"), [("ddp", 1), ("ddp", 2), ("fsdp", 1), ("fsdp", 2)])
def test_two_processes_give_what_one_gives(
    images: Path, alone: Path, tmp_path: Path, parallel: str, accumulate: int
) -> None:
    run = tmp_path / "run"
    settings = ("--data", images, *SETTINGS, "--epochs", 3, "--device", "cpu", "--output", run)
    process = torchrun(*settings, "--parallel", parallel, "--accumulate", accumulate)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "Warning" not in err and "elsa-ext" not in err
    assert out.count("test accuracy") == 1 and f"2 processes, {parallel}" in out
    for found, expected in zip(metrics(run), metrics(alone), strict=True):
        for name in ("train_loss", "test_loss", "learning_rate"):
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
        for name in ("train_accuracy", "test_accuracy"):
            assert found[name] == expected[name]
    weights, expected_weights = (load(str(path / "checkpoint.pt")).state_dict for path in (run, alone))
    for name, tensor in expected_weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_stopped_and_resumed(images: Path, tmp_path: Path, parallel: str) -> None:
    """To the bits of a run that nobody stopped, and also on one process alone."""
    settings = ("--data", images, *SETTINGS, "--epochs", 3, "--device", "cpu", "--parallel", parallel)
    whole, run, stopping = tmp_path / "whole", tmp_path / "run", tmp_path / "stopping.py"
    process = torchrun(*settings, "--drop-path", 0.3, "--output", whole)
    assert process.communicate(timeout=600) and process.returncode == 0
    stopping.write_text(STOPPING)
    process = torchrun(*settings, "--drop-path", 0.3, "--output", run, program=(stopping,))
    out, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "goes on with it" in out, err
    found = load(str(run / "checkpoint.pt"))
    assert found.training is not None
    assert (found.training["progress"]["epoch"], found.training["progress"]["step"]) == (2, 2)
    first, second = found.training["generators"]
    assert not torch.equal(first["torch"], second["torch"])  # each has noise of its own
    process = torchrun("--resume", run)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert_same(run, whole)
    assert main(["train", "--resume", str(run), *(["--parallel", "ddp"] if parallel == "fsdp" else [])]) == 0


def test_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--parallel", "fsdp", "--output", str(tmp_path / "run")]) == 2
    assert "--parallel fsdp needs several processes: torchrun" in capsys.readouterr().err
    process = torchrun("--data", images, "--batch-size", 9, "--output", tmp_path / "run")
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "--batch-size 9 is not a multiple of 2: 2 processes" in err
    assert not (tmp_path / "run").exists()

"""Which images are in which step, and what comes of batches that no model can take and of failing workers."""

import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsa_ext.cli.data.data_set import Images
from elsa_ext.cli.train.steps import IGNORED, Batches, Draw, Drawn, warmup_steps

from .conftest import Result, write_images
from .test_errors import assert_refused

Command = Callable[..., Result]


@pytest.mark.parametrize(
    ("images", "size", "train", "test"),
    [
        (33, 32, [32], [32, 1]),
        (65, 32, [32, 32], [32, 32, 1]),
        (34, 32, [32, 2], [32, 2]),
        (1, 32, [1], [1]),
        (3, 1, [1, 1, 1], [1, 1, 1]),
        (3, 2, [2], [2, 1]),
    ],
)
def test_last_batch(images: int, size: int, train: list[int], test: list[int]) -> None:
    for seed, expected in ((0, train), (None, test)):
        batches = Batches(images, size, seed=seed)
        assert [len(draws) for draws in batches] == expected
        assert len(batches) == len(expected)


@pytest.mark.parametrize(("images", "expected"), [(22, [8, 8, 4]), (19, [8, 8]), (16, [8, 8]), (3, [])])
def test_last_batch_of_pairs(images: int, expected: list[int]) -> None:
    """Every batch of each of two processes is even."""
    assert Batches(images, 8, seed=0, processes=2, even=True).sizes == expected


def test_order_depends_on_seed_and_epoch_alone() -> None:
    """However many processes and parts there are, they have the same images of a step, augmented alike."""

    def steps(epoch: int, start: int, processes: int, parts: int, seed: int = 3) -> list[set[Draw]]:
        found: list[set[Draw]] = []
        for rank in range(processes):
            batches = Batches(22, 6, seed=seed, rank=rank, processes=processes, parts=parts)
            batches.epoch, batches.start = epoch, start
            drawn = [*batches]
            assert len(drawn) == len(batches)
            for index in range(0, len(drawn), parts):
                if rank == 0:
                    found.append(set())
                found[index // parts] |= {draw for part in drawn[index : index + parts] for draw in part}
        return found

    whole = steps(1, 0, 1, 1)
    assert [len(step) for step in whole] == [6, 6, 6, 4]
    assert {draw.image for step in whole for draw in step} == {*range(22)}
    for processes, parts in ((2, 1), (1, 3), (2, 2)):
        assert steps(1, 0, processes, parts) == whole
    assert steps(1, 2, 2, 1) == whole[2:]
    for other in (steps(2, 0, 1, 1), steps(1, 0, 1, 1, seed=4)):
        assert [{draw.image for draw in step} for step in other] != [{draw.image for draw in step} for step in whole]
        assert not {draw.seed for step in other for draw in step} & {draw.seed for step in whole for draw in step}


@pytest.mark.parametrize(("epochs", "steps"), [(None, 3), (0.5, 2), (2, 6), (20, 30), (0, 0)])
def test_steps_of_a_part_of_an_epoch_are_rounded_up(epochs: float | None, steps: int) -> None:
    assert warmup_steps(30, 3, epochs) == steps


def test_every_process_tests_in_every_step() -> None:
    parts = [[*Batches(5, 4, seed=None, rank=rank, processes=2)] for rank in range(2)]
    assert [[draw.image for draw in batch] for batch in parts[0]] == [[0, 2], [4]]
    assert [[draw.image for draw in batch] for batch in parts[1]] == [[1, 3], [-1]]


def test_augmentation_does_not_disturb_others() -> None:
    """Whatever an image's transform draws, the model's own random numbers are those they would be without it."""

    def transform(_: Any) -> torch.Tensor:
        return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])

    images = Drawn(Images([(None, 7)], transform), torch.zeros(3), skip=False, replace=True)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = [random.random(), np.random.rand(), float(torch.rand(()))]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first, label, reason = images[Draw(0, 5)]
    assert [random.random(), np.random.rand(), float(torch.rand(()))] == expected
    assert (label, reason) == (7, "")
    assert torch.equal(images[Draw(0, 5)][0], first) and not torch.equal(images[Draw(0, 6)][0], first)
    assert images[Draw(-1, 0)][1] == IGNORED


def write_split(root: Path, red: int, tan: int) -> Path:
    write_images(root / "train", "red", red)
    write_images(root / "train", "tan", tan)
    write_images(root / "val", "red tan", 1)
    return root


def test_last_batch_of_one_with_batch_norm(command: Command, tmp_path: Path) -> None:
    images = write_split(tmp_path / "images", 3, 2)
    arguments = ("--data", images, "--model", "resnet10t", "--image-size", 32, "--epochs", 1)
    result = command("train", *arguments, "--batch-size", 4, "--output", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    result = command("train", *arguments, "--batch-size", 1, "--output", tmp_path / "one")
    assert_refused(result, "elsa-ext train: the model cannot learn from a batch of 1 x 32 x 32 pixels: ")
    assert not (tmp_path / "one").exists()


@pytest.mark.thorough
def test_full_shared_memory(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 12)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))  # a checkpoint fits, a batch does not

    small = ("--image-size", "128", "--workers", "1")
    process = subprocess.run(
        [sys.executable, "-m", "elsa_ext.cli", "train", "--data", images, *small, "--output", tmp_path / "r"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("elsa-ext train: ") and process.stderr.count("\n") == 1
    assert "File too large" in process.stderr and "--workers 0" in process.stderr

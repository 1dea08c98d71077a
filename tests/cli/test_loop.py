"""What the training loop makes of a last batch of one, of one that no model can learn from, and of failing workers."""

import argparse
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsa_ext.cli.loop import batches, one_pass
from tqdm import tqdm

from .conftest import Result, write_images
from .test_errors import assert_refused

Command = Callable[..., Result]


def test_evaluation_is_the_mean_over_the_images() -> None:
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    parts = [(logits[:6], labels[:6]), (logits[6:], labels[6:])]
    loss, accuracy = one_pass(torch.nn.Dropout(0.5), parts, torch.device("cpu"), tqdm(disable=True))
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels)))
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


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
    dataset: Any = [(torch.zeros(1), 0)] * images
    args = argparse.Namespace(batch_size=size, workers=0)
    for shuffle, expected in ((True, train), (False, test)):
        loader = batches(dataset, args, shuffle)
        assert [len(labels) for _, labels in loader] == expected
        assert len(loader) == len(expected)


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
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    process = subprocess.run(
        [sys.executable, "-m", "elsa_ext.cli", "train", "--data", images, "--workers", "1", "--output", tmp_path / "r"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("elsa-ext train: ") and process.stderr.count("\n") == 1
    assert "File too large" in process.stderr and "--workers 0" in process.stderr

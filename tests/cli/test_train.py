"""``elsa-ext train``: what it writes, what it learns, and that it can be repeated and interrupted."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsa_ext.cli.data.data_set import split
from elsa_ext.cli.train.report import Metrics, curves, draw_curves
from PIL import Image

from .conftest import Result, train_on, write_images

COLUMNS = [
    *("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"),
    *("learning_rate", "images_per_second"),
]
Command = Callable[..., Result]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


@pytest.mark.thorough
def test_digits(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = command("train", "--epochs", 2, "--image-size", 16, "--batch-size", 128, "--output", run)
    assert result.code == 0
    assert "1438 images to train on, 359 to test on" in result.out
    assert str(run) in result.out
    rows = metrics(run)
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    accuracy = float(rows[1]["test_accuracy"])
    assert accuracy * 359 == pytest.approx(round(accuracy * 359))
    assert f"{accuracy:.2%}" in result.out
    content = checkpoint(run)
    assert content["model"] == "elsa_swin_micro"
    assert content["classes"] == [str(digit) for digit in range(10)]
    assert content["input"]["input_size"] == (3, 16, 16)
    assert (content["epoch"], content["metrics"]["test_accuracy"]) == (2, accuracy)
    assert sorted(file.name for file in (run / "samples").iterdir()) == [f"{digit}.png" for digit in range(10)]


def test_curves_show_every_epoch(tmp_path: Path) -> None:
    rows = [Metrics(epoch, 2 / epoch, 1 - 1 / epoch, 1 / epoch, 1 - 0.5 / epoch, 3.0) for epoch in range(1, 6)]
    draw_curves(tmp_path / "curves.png", "title", rows)
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    width = pixels.shape[1]
    for colour in ((31, 119, 180), (255, 127, 14)):  # of the train and the test line
        drawn = (abs(pixels - colour) < 40).all(2).any(0)
        for half in (drawn[: width // 2], drawn[width // 2 :]):
            assert half.sum() > width / 4


def test_legends_cover_no_curve() -> None:
    figure = curves([Metrics(1, 2.38, 0.11, 2.3, 0.1, 3.0)])
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None and legend.get_window_extent().y0 >= axes.bbox.y1


def test_curves_are_those_of_the_rows() -> None:
    rows = [Metrics(1, 2.0, 0.1, 3.0, 0.2, 1.0), Metrics(2, 1.0, 0.3, 1.5, 0.25, 1.0)]
    loss, accuracy = curves(rows).axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 2], [2, 1]], [[1, 3], [2, 1.5]]]
    assert [line.get_xydata().tolist() for line in accuracy.lines] == [[[1, 0.1], [2, 0.3]], [[1, 0.2], [2, 0.25]]]
    assert [line.get_label() for line in loss.lines] == ["train, 1.0000 at the end", "test, 1.5000 at the end"]


def test_learns(trained: Path) -> None:
    rows = metrics(trained)
    assert len(rows) == 5
    assert float(rows[-1]["test_accuracy"]) == 1
    assert checkpoint(trained)["classes"] == ["blue", "red"]


def test_same_seed_same_run(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 6)
    runs = [train_on(images, tmp_path / str(i), "--epochs", 2, "--seed", seed) for i, seed in enumerate((7, 7, 8))]
    tables = [[{**row, "seconds": "", "images_per_second": ""} for row in metrics(run)] for run in runs]
    weights = [torch.cat([tensor.flatten() for tensor in checkpoint(run)["state_dict"].values()]) for run in runs]
    assert tables[0] == tables[1]
    assert torch.equal(weights[0], weights[1])
    assert tables[0] != tables[2]
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("test_name", ["val", "test"])
def test_given_split(command: Command, tmp_path: Path, test_name: str) -> None:
    write_images(tmp_path / "images" / "train", "red tan", 7)
    write_images(tmp_path / "images" / test_name, "red tan", 3)
    result = command("train", "--data", tmp_path / "images", "--epochs", 1, "--output", tmp_path / "run")
    assert result.code == 0
    assert "14 images to train on, 6 to test on" in result.out


def test_held_out_split(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red", 2)
    write_images(images, "tan", 18)
    result = command("train", "--data", images, "--epochs", 1, "--output", tmp_path / "run")
    assert result.code == 0
    assert "15 images to train on, 5 to test on" in result.out


def test_every_class_is_tested() -> None:
    labels = [0] * 2 + [1] * 18
    train, test = split(labels, seed=3)
    assert sorted(train + test) == list(range(20))
    assert sorted(labels[index] for index in test) == [0, 1, 1, 1, 1]
    assert split(labels, seed=3) == (train, test)
    assert split(labels, seed=4) != (train, test)


def test_other_model_of_timm(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 3)
    result = command(
        "train", "--data", images, "--model", "resnet10t", "--image-size", 32, "--epochs", 1, "--output", tmp_path / "r"
    )
    assert result.code == 0
    assert command("classify", tmp_path / "r" / "checkpoint.pt", images / "red" / "0.png").code == 0


def test_default_run_folder(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "shapes", "red tan", 2)
    monkeypatch.chdir(tmp_path)
    assert command("train", "--data", "shapes", "--epochs", 1).code == 0
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("shapes-2")
    assert {file.name for file in run.iterdir()} == {"checkpoint.pt", "metrics.csv", "curves.png"}


def test_last_step_that_has_gone_too_far(command: Command, tmp_path: Path) -> None:
    """Every step has a finite loss before it, and the weights after the only one are nothing to keep."""
    images = write_images(tmp_path / "images", "red tan", 2)
    result = command("train", "--data", images, "--image-size", 8, "--lr", 1e15, "--output", tmp_path / "run")
    assert result.code == 1
    assert result.err == "elsa-ext train: the loss is no longer finite; try a lower --lr\n"
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_finite(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 20)
    result = command(
        "train", "--data", images, "--lr", 1e15, "--batch-size", 8, "--epochs", 3, "--output", tmp_path / "run"
    )
    assert result.code == 1
    assert result.err.rstrip().endswith("elsa-ext train: the loss is no longer finite; try a lower --lr")

"""Data sets by name, in files of the idx format."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elsa_ext.cli.checkpoint import load
from elsa_ext.cli.data import data_set
from elsa_ext.cli.data.idx import read_idx

from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]


def write_idx(folder: Path, count: int, zipped: bool, labels: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for part, images in (("train", count), ("t10k", 10)):
        pixels = noise.integers(0, 256, (images, 28, 28), np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        files = {
            f"{part}-images-idx3-ubyte": b"\0\0\x08\x03" + sizes + pixels.tobytes(),
            f"{part}-labels-idx1-ubyte": b"\0\0\x08\x01" + sizes[:4] + bytes(i % labels for i in range(images)),
        }
        for name, content in files.items():
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def test_every_image_has_its_label(tmp_path: Path) -> None:
    train, test = read_idx(write_idx(tmp_path, 20, True))
    noise = np.random.default_rng(0)
    for found, count in ((train, 20), (test, 10)):
        assert np.array_equal([pixels for pixels, _ in found], noise.integers(0, 256, (count, 28, 28), np.uint8))
        assert [label for _, label in found] == [number % 10 for number in range(count)]


@pytest.mark.parametrize(("name", "sides"), [("mnist", {True}), ("fashion", {True, False})])
def test_clothes_alone_are_mirrored(name: str, sides: set[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:, :14] = 255
    monkeypatch.setattr(data_set, "read_idx", lambda _: ([(pixels, 0)], [(pixels, 0)]))
    data = data_set.idx(Path(name), {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)})
    assert {bool(data.train[0][0][..., :4].mean() > 0.5) for _ in range(20)} == sides


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    write_idx(Path("data/FashionMNIST/raw"), 20, zipped)
    arguments = ("--image-size", 8, "--epochs", 1, "--erasing", 0.5)
    result = command("train", "--data", "fashion-mnist", *arguments, "--output", "run")
    assert (result.code, result.err) == (0, "")
    assert "fashion-mnist: 20 images to train on, 10 to test on" in result.out
    assert load("run/checkpoint.pt").classes[0] == "T-shirt/top"
    result = command("train", "--data", "data", *arguments, "--output", "again")
    assert result.code == 0 and "data: 20 images" in result.out
    assert load("again/checkpoint.pt").classes == load("run/checkpoint.pt").classes


def test_mnist_and_damaged_files(command: Command, tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist", 20, True)
    arguments = ("train", "--data", root, "--image-size", 8, "--epochs", 1, "--output", tmp_path / "run")
    assert command(*arguments).code == 0
    assert load(str(tmp_path / "run" / "checkpoint.pt")).classes == [str(digit) for digit in range(10)]
    images = root / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "train-images-idx3-ubyte.gz is damaged")
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "is damaged, or no idx file")
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    images.write_bytes(whole)
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "no such file: ", "nor with .gz")

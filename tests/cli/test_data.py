"""Images of a folder, to train and to test on."""

import pickle
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from elsa_ext.cli.data.data_set import Data, Images, folder, limited, load_data
from elsa_ext.cli.errors import CommandError
from elsa_ext.cli.parser import build_parser
from torch.utils.data import DataLoader

from .conftest import Result, write_images
from .test_idx import write_idx

CONFIG: dict[str, Any] = {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)}
BRIGHTEST = {"red": 0, "lime": 1, "blue": 2}
"""The channel of each colour."""


def count(images: Images) -> Counter[int]:
    return Counter(label for _, label in images.labelled)


def assert_right_labels(images: Images, classes: list[str]) -> None:
    for picture, label in images:
        assert int(picture.mean((1, 2)).argmax()) == BRIGHTEST[unicodedata.normalize("NFC", classes[label]).lower()]


def test_split_at_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path, "red lime blue", 7)
    data = folder(tmp_path, CONFIG, seed=0)
    assert data.classes == ["blue", "lime", "red"]
    assert (count(data.train), count(data.test)) == ({0: 6, 1: 6, 2: 6}, {0: 1, 1: 1, 2: 1})
    assert not {*data.train.labelled} & {*data.test.labelled}
    assert_right_labels(data.train, data.classes)
    assert_right_labels(data.test, data.classes)
    assert data.test[0][0].shape == (3, 8, 8)
    assert folder(tmp_path, CONFIG, seed=0).test.labelled == data.test.labelled
    assert folder(tmp_path, CONFIG, seed=1).test.labelled != data.test.labelled
    assert capsys.readouterr().out == ""


def test_limited() -> None:
    """The same images of each class in every call, in their order, and all of a class that has no more."""
    images = [(f"{index}.png", index % 3) for index in range(30)] + [("last.png", 3)]
    found = limited(images, 4)
    assert Counter(label for _, label in found) == {0: 4, 1: 4, 2: 4, 3: 1}
    assert found == limited(images, 4) == sorted(found, key=images.index)
    assert {*found} < {*limited(images, 5)} and limited(images, 10) == images
    assert {*found} != {*images[:12], images[30]}  # the first ones, which may all be alike


def load(data: Path, *words: object) -> Data:
    """What the arguments of the command line ask for."""
    return load_data(build_parser().parse_args(["train", "--data", *map(str, (data, *words))]), CONFIG)


def test_only_images_to_train_on_are_changed(tmp_path: Path) -> None:
    images, numbers = write_images(tmp_path / "images", "red lime", 10), write_idx(tmp_path / "mnist", 20, True)
    for data in (images, numbers):
        plain, found = load(data), load(data, "--limit", 1, "--erasing", 1)
        assert len(found.train) == len(found.classes) and len(found.test) == len(plain.test)
        assert not torch.equal(plain.train[0][0], plain.train[0][0])
        assert plain.train[0][0].min() >= 0 > found.train[0][0].min()  # noise that erases is below 0, too
        for (once, _), (again, _) in zip(plain.test, found.test, strict=True):
            assert torch.equal(once, again)


def test_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "Train", "red lime blue", 3)
    write_images(tmp_path / "valid", "red lime blue", 2)
    write_images(tmp_path / "test", "red", 1)
    for name in ("valid/red/notes.txt", "Train/red/1.txt", "cover.txt"):
        (tmp_path / name).touch()
    data = folder(tmp_path, CONFIG, seed=0)
    assert data.classes == ["blue", "lime", "red"]
    assert (count(data.train), count(data.test)) == ({0: 3, 1: 3, 2: 3}, {0: 2, 1: 2, 2: 2})
    assert_right_labels(data.train, data.classes)
    assert_right_labels(data.test, data.classes)
    assert capsys.readouterr().out.splitlines() == [
        "folders 'Train' to train on, 'valid' to test on; not used: 'test'",
        "left out 2 files: 2 .txt",
    ]


def test_classes_that_are_written_otherwise(tmp_path: Path) -> None:
    write_images(tmp_path / "train", "red lime blue", 2)
    write_images(tmp_path / "val", "red lime blue", 2)
    for name, other in (("red", "Red"), ("lime", "LIME")):  # in another order, too
        (tmp_path / "val" / name).rename(tmp_path / "val" / other)
    data = folder(tmp_path, CONFIG, seed=0)
    assert data.classes == ["blue", "lime", "red"]
    assert_right_labels(data.test, data.classes)


def test_classes_with_accents_of_a_mac(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    write_images(tmp_path / "train", "red blue", 2)
    write_images(tmp_path / "val", "red blue", 2)
    (tmp_path / "train" / "red").rename(tmp_path / "train" / composed)
    (tmp_path / "val" / "red").rename(tmp_path / "val" / apart)
    data = folder(tmp_path, CONFIG, seed=0)
    assert data.classes == ["blue", composed]
    assert [label for _, label in data.test.labelled] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("train", "val", "odd"),
    [
        ("red lime", "red blue", "blue, lime"),
        ("red lime", "red lime blue", "blue"),
        ("red lime blue", "red lime", "blue"),
        ("red lime", "red RED lime", "red"),
        ("red RED lime", "Red lime", "RED, Red, red"),
    ],
)
def test_other_classes(tmp_path: Path, train: str, val: str, odd: str) -> None:
    write_images(tmp_path / "train", train, 2)
    write_images(tmp_path / "val", val, 2)
    with pytest.raises(CommandError, match=f"train and {tmp_path}/val differ in their classes: {odd}$"):
        folder(tmp_path, CONFIG, seed=0)


def test_gif_classes(tmp_path: Path) -> None:
    write_images(tmp_path, "red lime", 2)
    for path in (tmp_path / "red").iterdir():
        path.rename(path.with_suffix(".gif"))
    with pytest.raises(CommandError, match="GIFs alone, red"):
        folder(tmp_path, CONFIG, seed=0)


def test_train_says_what_it_leaves_out(command: Callable[..., Result], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 5)
    (images / "red" / "._0.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    (images / "red" / "0.heic").write_bytes(b"")
    result = command("train", "--data", images, "--epochs", 1, "--output", tmp_path / "run")
    assert result.code == 0
    assert result.out.startswith("left out 1 file: 1 .heic\ndata ")
    assert "8 images to train on, 2 to test on" in result.out
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["classes"] == ["red", "tan"]


def test_train_without_a_test_folder(command: Callable[..., Result], tmp_path: Path) -> None:
    write_images(tmp_path / "train", "red tan", 5)
    result = command("train", "--data", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"elsa-ext train: {tmp_path} holds train alone: a folder to test on is expected")


def test_workers_by_any_means(tmp_path: Path) -> None:
    """Where processes do not fork, as on macOS, the data set is pickled."""
    data = folder(write_images(tmp_path, "red lime", 3), CONFIG, seed=0)
    again = pickle.loads(pickle.dumps(data.test))
    assert torch.equal(again[0][0], data.test[0][0])


def test_worker_names_the_file(tmp_path: Path) -> None:
    write_images(tmp_path, "red lime", 3)
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    data = folder(tmp_path, CONFIG, seed=0)
    with pytest.raises(CommandError, match=rf"cannot read {tmp_path}/\w+/\d.png as an image: it is damaged"):
        next(iter(DataLoader(data.train, 2, num_workers=1)))

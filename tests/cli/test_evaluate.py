"""``elsa-ext evaluate``: the accuracy that training has printed, right counts of every class, and errors that help."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsa_ext.cli.checkpoint import Checkpoint, load, load_model
from elsa_ext.cli.data import data_set
from elsa_ext.cli.data.images import load_image
from elsa_ext.cli.evaluate.command import Evaluation
from elsa_ext.cli.evaluate.confusion import draw_confusion, picture
from elsa_ext.cli.evaluate.images import drawn_again
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform

from .conftest import Result, train_on, write_images
from .test_errors import assert_refused

Command = Callable[..., Result]

SMALL = ("--image-size", 8, "--batch-size", 4, "--epochs", 1)


def evaluated(command: Command, *arguments: object) -> dict[str, Any]:
    result = command("evaluate", *arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images of three classes that are hard to tell apart, and the run that was trained on them."""
    folder = tmp_path_factory.mktemp("hard")
    write_images(folder / "images", "red firebrick tan", 25)
    train_on(folder / "images", folder / "run", *SMALL, "--seed", 3)
    return folder


def test_counts() -> None:
    found = Evaluation(torch.zeros(6, 6, dtype=torch.int64))
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [9, 9, 9, 9, 9, 9]])
    found.add(logits, torch.tensor([0, 5, 4, -1]))
    found.seconds, found.batches = 2.0, [(3, 9.0), (6, 1.0)]
    facts = found.facts(list("abcdef"))
    assert (facts["images"], facts["top1"], facts["top5"]) == (3, 1 / 3, 2 / 3)
    assert (facts["images_per_second"], facts["model_images_per_second"]) == (1.5, 6.0)  # without the first batch
    assert facts["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits[:3], torch.tensor([0, 5, 4])).item())
    assert [facts["confusion"][row][column] for row, column in ((0, 0), (5, 0), (4, 5))] == [1, 1, 1]
    assert facts["classes"][0] == {"class": "a", "images": 1, "precision": 0.5, "recall": 1.0}
    assert facts["classes"][1] == {"class": "b", "images": 0, "precision": None, "recall": None}
    assert facts["classes"][5] == {"class": "f", "images": 1, "precision": 0.0, "recall": 0.0}


@pytest.mark.thorough
def test_accuracy_of_a_folder_is_that_of_the_training(command: Command, hard: Path) -> None:
    trained = load(str(hard / "run" / "checkpoint.pt")).metrics
    facts = evaluated(command, hard / "run" / "checkpoint.pt")
    assert (facts["top1"], facts["loss"]) == (trained["test_accuracy"], trained["test_loss"])
    assert facts["images"] == 15 and 0.1 < facts["top1"] < 1
    assert facts["data"] == "images, the test images of the training"


@pytest.mark.thorough
@pytest.mark.parametrize("options", [("--epochs", 1), ("--epochs", 1, "--amp", "bf16", "--ema", 0.9)], ids=str)
def test_accuracy_of_the_digits_is_that_of_the_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...]
) -> None:
    few = load_digits()
    few.images, few.target = few.images[:300], few.target[:300]
    monkeypatch.setattr(data_set, "load_digits", lambda: few)
    result = command("train", "--model", "elsa_swin_micro", *options, "--batch-size", 50, "--output", tmp_path / "run")
    assert result.code == 0
    trained = load(str(tmp_path / "run" / "checkpoint.pt")).metrics
    for named in ((), ("--data", "digits")):
        facts = evaluated(command, tmp_path / "run" / "checkpoint.pt", *named)
        assert (facts["top1"], facts["loss"]) == (trained["test_accuracy"], trained["test_loss"])
        assert facts["data"] == "digits, the test images of the training"
    assert f"test accuracy {facts['top1']:.2%} " in result.out


@pytest.mark.thorough
def test_every_class_is_counted_as_the_model_answers(command: Command, hard: Path) -> None:
    write_images(hard / "more", "red firebrick tan", 7)
    (hard / "more" / "tan").rename(hard / "more" / "Tan")  # another order, and another case
    checkpoint, model = load_model(str(hard / "run" / "checkpoint.pt"))
    to_input = create_transform(**checkpoint.input)
    counts = torch.zeros(3, 3, dtype=torch.int64)
    for path in (hard / "more").glob("*/*.png"):
        with torch.no_grad():
            answer = model(to_input(load_image(path))[None]).argmax().item()
        counts[checkpoint.classes.index(path.parent.name.lower()), answer] += 1
    for options in ((), ("--batch-size", 3), ("--workers", 1)):
        facts = evaluated(command, hard / "run" / "checkpoint.pt", "--data", hard / "more", *options)
        assert facts["confusion"] == counts.tolist()
    assert facts["data"] == "all of more"
    table = command("evaluate", hard / "run" / "checkpoint.pt", "--data", hard / "more").out.splitlines()
    recall = counts[2, 2].item() / 7
    assert table[-1].split()[:2] == ["tan", "7"] and table[-1].split()[-1] == f"{recall:.2%}"
    assert [line.split()[0] for line in table[:7]] == ["model", "data", "device", "loss", "top-1", "top-5", "speed"]


@pytest.mark.thorough
def test_images_of_the_training_are_known_again_elsewhere(command: Command, hard: Path, tmp_path: Path) -> None:
    shutil.copytree(hard / "images", tmp_path / "moved")
    trained = load(str(hard / "run" / "checkpoint.pt")).metrics
    facts = evaluated(command, hard / "run" / "checkpoint.pt", "--data", tmp_path / "moved")
    assert (facts["images"], facts["top1"]) == (15, trained["test_accuracy"])
    (tmp_path / "moved" / "red" / "0.png").unlink()
    assert evaluated(command, hard / "run" / "checkpoint.pt", "--data", tmp_path / "moved")["images"] == 74


@pytest.mark.parametrize("options", [{"seed": 3}, {"seed": 3, "limit": None}, {"seed": 3, "limit": 2}], ids=str)
def test_images_that_were_not_trained_on(options: dict[str, Any]) -> None:
    """Also of a training on a few of each class: what it has left out is not tested on either."""
    files = [(f"{number}.png", number % 2) for number in range(20)]
    train, test = data_set.split([label for _, label in files], 3)
    count = len(train) if options.get("limit") is None else 4
    training = {"options": options, "images": [count, len(test)]}
    checkpoint = Checkpoint("m", {}, ["a", "b"], {}, 1, {}, {}, training)
    assert drawn_again(checkpoint, files) == [files[index] for index in test]
    assert drawn_again(checkpoint, files[:10]) is None


@pytest.mark.thorough
def test_parts(command: Command, hard: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "train", "red firebrick tan", 3)
    write_images(tmp_path / "val", "red firebrick tan", 2)
    facts = evaluated(command, hard / "run" / "checkpoint.pt", "--data", tmp_path)
    assert (facts["images"], facts["data"]) == (6, f"{tmp_path.name}, folder 'val'")


@pytest.mark.thorough
def test_images_that_have_changed_are_refused(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 5)
    run = train_on(images, tmp_path / "run", *SMALL)
    (images / "red" / "0.png").rename(tmp_path / "0.png")
    for named in ((), ("--data", images)):
        assert_refused(command("evaluate", run / "checkpoint.pt", *named), "these are not the images of the run")
    images.rename(tmp_path / "elsewhere")
    assert_refused(
        command("evaluate", run / "checkpoint.pt"), f"{images}, which the model was trained on, is not there"
    )


@pytest.mark.thorough
def test_other_classes(command: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoint.pt"
    write_images(tmp_path / "more", "red blue tan", 1)
    assert_refused(command("evaluate", checkpoint, "--data", tmp_path / "more"), "knows 2; unknown: tan")
    write_images(tmp_path / "others", "red tan lime", 1)
    assert_refused(command("evaluate", checkpoint, "--data", tmp_path / "others"), "lime, tan; missing: blue")
    assert_refused(
        command("evaluate", checkpoint, "--data", "digits"), "--data digits has other classes", "missing: blue"
    )


@pytest.mark.thorough
def test_mistakes(command: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoint.pt"
    assert_refused(command("evaluate", tmp_path / "no.pt"), f"elsa-ext evaluate: no such file: {tmp_path}/no.pt")
    assert_refused(command("evaluate", checkpoint, "--data", tmp_path / "no"), f"no such folder: {tmp_path}/no")
    assert_refused(command("evaluate", checkpoint, "--data", tmp_path), f"{tmp_path} holds no class folder")
    assert_refused(command("evaluate", checkpoint, "--confusion", tmp_path), f"{tmp_path}: Is a directory")
    assert_refused(command("evaluate", checkpoint, "--confusion", tmp_path / "no" / "a.png"), "No such file")
    assert_refused(command("evaluate", checkpoint, "--batch-size", 0), "--batch-size", "'0'")
    content = torch.load(checkpoint, weights_only=True)
    del content["sha256"], content["training"]
    torch.save(content, tmp_path / "old.pt")
    assert_refused(command("evaluate", tmp_path / "old.pt"), "does not say what it was trained on: give --data FOLDER")
    torch.save({**content, "classes": ["red"]}, tmp_path / "one.pt")
    assert_refused(command("evaluate", tmp_path / "one.pt"), "names 1 classes, and its model has 2")


@pytest.mark.thorough
def test_images_that_cannot_be_read(command: Command, trained: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red blue", 3)
    (images / "red" / "1.png").write_text("no image")
    stopped = command("evaluate", trained / "checkpoint.pt", "--data", images, "--confusion", tmp_path / "c.png")
    assert_refused(stopped, f"cannot read {images}/red/1.png")
    assert not (tmp_path / "c.png").exists()
    skipped = command("evaluate", trained / "checkpoint.pt", "--data", images, "--bad-images", "skip", "--json")
    assert skipped.code == 0 and skipped.err.startswith(f"elsa-ext evaluate: skipped: cannot read {images}/red/1.png")
    facts = json.loads(skipped.out)
    assert (facts["images"], facts["skipped"], sum(map(sum, facts["confusion"]))) == (5, 1, 5)
    for image in images.glob("*/*.png"):
        image.write_text("no image")
    none = command("evaluate", trained / "checkpoint.pt", "--data", images, "--bad-images", "skip")
    assert none.code == 2 and "none of the images can be read" in none.err


def test_fields_of_the_confusion() -> None:
    """A class in each row, which is coloured by its own shares."""
    axes = picture("", ["a", "b"], np.array([[3, 1], [0, 6]])).axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "3"),
        ((1, 0), "1"),
        ((1, 1), "6"),
    }
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]
    assert axes.get_ylabel() == "class" and axes.get_ylim()[0] > axes.get_ylim()[1]


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 10, 100, 1000])
def test_confusion(tmp_path: Path, count: int) -> None:
    counts = torch.randint(0, 9, (count, count)) + 100 * torch.eye(count, dtype=torch.int64)
    counts[0] = 0  # a class without an image
    draw_confusion(tmp_path / "c.png", "$a$ \x1b 日本", [f"class {n} " + "x" * 90 for n in range(count)], counts)
    with Image.open(tmp_path / "c.png") as image:
        assert image.format == "PNG" and max(image.size) < 2000

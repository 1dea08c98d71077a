"""Mistakes of the user: one line on stderr that says what is wrong, and exit code 2."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from elsa_ext.cli.parser import build_parser
from PIL import Image

from .conftest import Result, write_images

Command = Callable[..., Result]


def assert_refused(result: Result, *parts: str) -> None:
    assert result.code == 2
    assert result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    assert result.err.startswith("elsa-ext")
    for part in parts:
        assert part in result.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model", "elsa_swin_mirco"], ["unknown model 'elsa_swin_mirco'", "elsa_swin_micro"]),
        (["--model", "xyz"], ["unknown model 'xyz'", "elsa_swin_micro", "elsa_swin_base"]),
        (["--model", "vit_tiny_patch16_224", "--image-size", "15"], ["vit_tiny_patch16_224", "15 x 15"]),
        (["--spec", "qk softmax"], ["--spec", "a spec has terms, a norm and a region", "'qk softmax'"]),
        (["--model", "resnet10t", "--spec", "elsa"], ["--spec is for the models elsa_swin_*, got --model resnet10t"]),
        (["--epochs", "0"], ["--epochs", "whole number >= 1", "'0'"]),
        (["--epochs", "1.5"], ["--epochs", "'1.5'"]),
        (["--batch-size", "-1"], ["--batch-size", "'-1'"]),
        (["--lr", "0"], ["--lr", "'0'"]),
        (["--lr", "nan"], ["--lr", "'nan'"]),
        (["--lr", "inf"], ["--lr", "'inf'"]),
        (["--weight-decay", "-0.1"], ["--weight-decay", "'-0.1'"]),
        (["--lr", "1e300"], ["--lr", "a number <= 1e+15", "'1e300'"]),
        (["--color-jitter", "1e300"], ["--color-jitter", "'1e300'"]),
        (["--image-size", "9" * 400], ["--image-size", "a whole number <= 1e+15"]),
        (["--seed", "4294967296"], ["--seed", "from 0 to 4294967295", "'4294967296'"]),
        (["--workers", "100000"], ["--workers", "from 0 to 1024", "'100000'"]),
        (["--workers", "many"], ["--workers", "'many'"]),
        (["--image-size", "0"], ["--image-size", "'0'"]),
        (["--device", "toaster"], ["--device toaster"]),
        (["--device", "meta"], ["--device meta"]),
        (["--data", "nowhere"], ["no such folder: nowhere"]),
        (["--epochs"], ["--epochs"]),
        (["--data", ""], ["--data", "''"]),
        (["--model", ""], ["--model", "''"]),
        (["--device", ""], ["--device", "''"]),
        (["--output", ""], ["--output", "''"]),
        (["--output", "a\0b"], ["--output", "'a\\x00b'"]),
        (["--image-size", "1"], ["elsa_swin_micro cannot be built for images of 1 x 1 pixels"]),
        (["--epoch", "3"], ["unknown --epoch 3; did you mean --epochs?", "elsa-ext train --help"]),
        (["--batch=3"], ["unknown --batch=3; did you mean --batch-size?"]),
        (["--ouptut", "x"], ["unknown --ouptut x; did you mean --output?"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_train_options(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command("train", *arguments)
    assert_refused(result, "elsa-ext train: ", *parts)
    assert list(tmp_path.iterdir()) == []


def test_options_between_what_may_be_many() -> None:
    args = build_parser().parse_args(["compare", "elsa", "--limit", "5", "rb none window", "--json", "elsa"])
    assert args.specs == ["hadamard softmax neighborhood add", "rb none window", "hadamard softmax neighborhood add"]
    args = build_parser().parse_args(["classify", "x.pt", "a", "--top", "3", "-", "b"])
    assert (args.checkpoint, args.images, args.top) == ("x.pt", ["a", "-", "b"], 3)


def test_mistakes_between_what_may_be_many(command: Command) -> None:
    assert_refused(command("compare", "elsa", "--limit", "5", "softmax"), "argument SPEC: a spec has terms")
    assert_refused(command("classify", "a", "b", "--json", "c", "--topp", 3), "did you mean --top?")


def test_commands(command: Command) -> None:
    assert_refused(command(), "COMMAND")
    assert_refused(command("fly"), "'fly'", "train", "classify", "info")
    assert_refused(command("--colour", "red"), "(see elsa-ext --help)")
    rest = {"evaluate": "a", "classify": "a b", "attend": "a b", "export": "a b", "completion": "bash"}
    for name in ("train", "info", "bench op", "bench module", "bench model", *rest):
        result = command(*name.split(), *rest.get(name, "").split(), "--colour=red")
        assert_refused(result, f"elsa-ext {name}: unknown --colour=red (see elsa-ext ")
        assert result.err.endswith(f"(see elsa-ext {name} --help)\n")


def test_empty_folder(command: Command, tmp_path: Path) -> None:
    assert_refused(command("train", "--data", tmp_path), str(tmp_path), "class folder")
    for name in "ab":
        (tmp_path / name).mkdir()
    assert_refused(command("train", "--data", tmp_path), str(tmp_path), "classes without an image: a, b")


def test_data_is_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("")
    assert_refused(command("train", "--data", tmp_path / "images"), "is a file")


def test_one_class(command: Command, tmp_path: Path) -> None:
    assert_refused(command("train", "--data", write_images(tmp_path, "red", 4)), "one class", "'red'")


def test_class_of_one_image(command: Command, tmp_path: Path) -> None:
    write_images(tmp_path, "red", 4)
    write_images(tmp_path, "tan", 1)
    assert_refused(command("train", "--data", tmp_path), str(tmp_path / "tan"), "one image")


def test_split_with_other_classes(command: Command, tmp_path: Path) -> None:
    write_images(tmp_path / "train", "red tan blue", 2)
    write_images(tmp_path / "val", "red blue grey", 2)
    assert_refused(command("train", "--data", tmp_path), str(tmp_path / "val"), "classes: grey, tan")


def damaged_folder(root: Path) -> Path:
    images = write_images(root, "blue red", 4)
    for file in images.glob("red/*.png"):
        file.write_bytes(file.read_bytes()[:60])
    return images


def test_unreadable_image_in_training(command: Command, tmp_path: Path) -> None:
    result = command("train", "--data", damaged_folder(tmp_path / "images"), "--output", tmp_path / "run")
    assert result.code == 2
    last = result.err.splitlines()[-1].lstrip()
    assert last.startswith(f"elsa-ext train: cannot read {tmp_path}/images/red/")


@pytest.mark.thorough
def test_unreadable_image_in_a_worker(tmp_path: Path) -> None:
    arguments = ["train", "--data", str(damaged_folder(tmp_path / "images")), "--output", str(tmp_path / "run")]
    process = subprocess.run(
        [sys.executable, "-m", "elsa_ext.cli", *arguments, "--workers", "1"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    last = process.stderr.splitlines()[-1].lstrip()
    assert last.startswith(f"elsa-ext train: cannot read {tmp_path}/images/red/")


@pytest.mark.parametrize("missing", ["timm", "torchvision", "sklearn", "matplotlib", "tqdm", "PIL"])
def test_package_missing(command: Command, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    package = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(missing, missing)
    advice = f"pip install torch=={version('torch')} {package}\n"
    assert_refused(command("train"), f"elsa-ext train: {missing} not installed: {advice}")


def test_checkpoint_missing(command: Command, picture: Path, tmp_path: Path) -> None:
    assert_refused(
        command("classify", tmp_path / "no.pt", picture), f"elsa-ext classify: no such file: {tmp_path}/no.pt"
    )
    assert_refused(command("classify", tmp_path, picture), f"{tmp_path} is a folder")


def test_checkpoint_damaged(command: Command, picture: Path, trained: Path, tmp_path: Path) -> None:
    whole = (trained / "checkpoint.pt").read_bytes()
    for content in (b"", b"text", whole[:1000], whole[: len(whole) // 2], picture.read_bytes()):
        (tmp_path / "bad.pt").write_bytes(content)
        assert_refused(command("classify", tmp_path / "bad.pt", picture), "bad.pt is not a checkpoint")


@pytest.mark.parametrize(
    "content", [torch.zeros(3), {"model": "elsa_swin_micro"}, [1, 2]], ids=["tensor", "dict", "list"]
)
def test_checkpoint_of_something_else(command: Command, picture: Path, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    assert_refused(command("classify", tmp_path / "other.pt", picture), "other.pt was not written by elsa-ext train")


def test_checkpoint_that_would_run_code(command: Command, picture: Path, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    assert_refused(command("classify", tmp_path / "module.pt", picture), "module.pt is not a checkpoint")


def test_checkpoint_of_another_model(command: Command, picture: Path, trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    del content["sha256"]
    torch.save({**content, "model": "elsa_swin_huge"}, tmp_path / "a.pt")
    assert_refused(command("classify", tmp_path / "a.pt", picture), "a.pt", "unknown model 'elsa_swin_huge'")
    torch.save({**content, "model": "resnet10t"}, tmp_path / "b.pt")
    assert_refused(command("classify", tmp_path / "b.pt", picture), "b.pt", "are not those of resnet10t")
    torch.save({**content, "model_kwargs": {"num_classes": 3}}, tmp_path / "c.pt")
    assert_refused(
        command("classify", tmp_path / "c.pt", picture), "c.pt", "are not those of elsa_swin_micro", "head.fc"
    )
    torch.save({**content, "state_dict": {}}, tmp_path / "d.pt")
    result = command("classify", tmp_path / "d.pt", picture)
    assert_refused(result, "d.pt", "Missing key(s)", " …")
    assert len(result.err) < 600


def test_checkpoint_whose_fields_are_of_another_kind(
    command: Command, picture: Path, trained: Path, tmp_path: Path
) -> None:
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    del content["sha256"]
    torch.save({**content, "classes": 2, "training": []}, tmp_path / "a.pt")
    assert_refused(command("classify", tmp_path / "a.pt", picture), "a.pt", "classes, training in it are of another")


def test_answers_that_are_not_finite(command: Command, picture: Path, trained: Path, tmp_path: Path) -> None:
    """They are no JSON, and no accuracy can be told of them."""
    content = torch.load(trained / "checkpoint.pt", weights_only=True)
    del content["sha256"]
    content["state_dict"]["head.fc.bias"].fill_(torch.nan)
    torch.save(content, tmp_path / "a.pt")
    for arguments in (("classify", tmp_path / "a.pt", picture), ("evaluate", tmp_path / "a.pt")):
        result = command(*arguments, "--json")
        assert result == (1, "", f"elsa-ext {arguments[0]}: the model's answers are not finite numbers\n")


def test_pictures_take_the_place_of_nothing_that_is_read(command: Command, picture: Path, trained: Path) -> None:
    before = picture.read_bytes()
    result = command("attend", trained / "checkpoint.pt", picture, "--output", picture)
    assert_refused(result, f"{picture} is one of the files that are read")
    assert picture.read_bytes() == before


def test_pictures_are_png(command: Command) -> None:
    for arguments in ("attend a b --output x.pdf", "evaluate a --confusion x.jpg", "bench op --plot x.svg"):
        assert_refused(command(*arguments.split()), "expected a name that ends in .png, got 'x.")


def test_one_bad_image_among_good_ones(command: Command, picture: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not an image")
    (tmp_path / "half.png").write_bytes(picture.read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "good.png")
    images = [
        picture,
        tmp_path / "note.png",
        tmp_path / "none.png",
        tmp_path / "half.png",
        tmp_path / "empty",
        tmp_path / "good.png",
    ]
    result = command("classify", trained / "checkpoint.pt", *images)
    assert result.code == 2
    assert [line for line in result.out.splitlines() if not line.startswith(" ")] == [str(images[0]), str(images[-1])]
    assert [line.replace(str(tmp_path), "") for line in result.err.splitlines()] == [
        "elsa-ext classify: cannot read /note.png as an image: it is damaged, or of another kind",
        "elsa-ext classify: no such file: /none.png",
        "elsa-ext classify: cannot read /half.png as an image: it is damaged, or of another kind",
        "elsa-ext classify: no image in the folder /empty",
    ]


def test_classify_options(command: Command, picture: Path, trained: Path) -> None:
    assert_refused(command("classify", trained / "checkpoint.pt", picture, "--top", "0"), "--top", "'0'")
    assert_refused(command("classify", trained / "checkpoint.pt"), "IMAGE")
    assert_refused(command("classify", "", picture), "CHECKPOINT", "''")
    assert_refused(command("classify", trained / "checkpoint.pt", ""), "IMAGE", "''")

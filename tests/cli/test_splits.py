"""Which folders are to train and to test on, and when folders are classes although they are named so."""

from pathlib import Path

import pytest
from elsa_ext.cli.data.splits import find_split
from elsa_ext.cli.errors import CommandError

from .test_folders import write


def lay_out(root: Path, names: str) -> Path:
    """Make folders: "train/" with two classes in it, "train" with images alone, and return ``root``."""
    for name in names.split(", "):
        if name.endswith("/"):
            write(root, f"{name}red/1.png", f"{name}blue/1.png")
        else:
            write(root, f"{name}/1.png", f"{name}/2.png")
    return root


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        *(
            (f"train/, {name}/", "train", name)
            for name in ("val", "valid", "validation", "dev", "eval", "test", "testing")
        ),
        *((f"train/, {name}/", "train", name) for name in ("Val", "VALID", "Validation", "Dev", "Test", "TESTING")),
        *((f"{name}/, val/", name, "val") for name in ("Train", "TRAIN", "training", "Training")),
        ("training_set/, test_set/", "training_set", "test_set"),
        ("Train Data/, Validation Data/", "Train Data", "Validation Data"),
        ("trainset/, valset/, testset/", "trainset", "valset"),
        ("train2017/, val2017/", "train2017", "val2017"),
        ("seg_train/, seg_test/, seg_pred", "seg_train", "seg_test"),
        ("train/, valid/, test/", "train", "valid"),
        ("train/, val/, test", "train", "val"),
        ("train/, test/, dev/", "train", "dev"),
        ("train/, val/, test/, testing/", "train", "val"),
        ("train/, val/, holdout/, annotations, extra/", "train", "val"),
        ("train/, val/, .ipynb_checkpoints/, __MACOSX/", "train", "val"),
        ("train, val", "train", "val"),  # which find_classes refuses: they hold no classes
        ("train, test1, sample", "train", "test1"),
        ("training_set, test_images, sample", "training_set", "test_images"),
    ],
)
def test_parts(tmp_path: Path, names: str, train: str, test: str) -> None:
    assert find_split(lay_out(tmp_path, names)) == (tmp_path / train, tmp_path / test)


@pytest.mark.parametrize(
    "names",
    [
        "red, blue",
        "red/, blue/",
        "red",
        "bus, car, train",
        "dev, prod, test",
        "control, test",
        "holdout, red",
        "train_station, test_tube",
        "train_station/, test_tube",
        "trainer, tester",
        "data, images",
        "1, 2",
    ],
)
def test_classes(tmp_path: Path, names: str) -> None:
    assert find_split(lay_out(tmp_path, names)) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train/", "holds train alone: a folder to test on is expected .*val.*; --data .*/train tests on a fifth"),
        ("train", "holds train alone: a folder to test on is expected"),
        ("train/, __MACOSX/", "holds train alone"),
        (
            "train/, holdout/",
            "holds train and holdout: a folder to test on is expected .*val, valid, validation, dev or test",
        ),
        ("train, holdout", "holds train and holdout"),
        ("train/, a/, b", "holds train and a, b: "),
        ("train/, val/, valid/", "several folders to test on: val, valid;"),
        ("train/, test/, testing/", "several folders to test on: test, testing;"),
        ("train/, Train_2/, val/", "several folders to train on: Train_2, train;"),
        ("val/", "holds val, but no folder to train on"),
        ("val/, test/", "holds test, val, but no folder to train on"),
        ("dev, test", "holds dev, test, but no folder to train on"),
        ("red, blue, val/", "holds blue, red, val, but no folder to train on"),
        (
            "red/train/, red/val/, blue/train/, blue/val/",
            r"blue holds a folder to train and one to test on; .*train/<class>",
        ),
        ("archive/train/, archive/valid/, docs", "is --data .*/archive meant"),
    ],
)
def test_unclear(tmp_path: Path, names: str, message: str) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        find_split(lay_out(tmp_path, names))
    assert str(caught.value).startswith(str(tmp_path))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"no such folder: {tmp_path}/none"):
        find_split(tmp_path / "none")
    write(tmp_path, "file")
    with pytest.raises(CommandError, match=f"{tmp_path}/file is a file, not a folder of images"):
        find_split(tmp_path / "file")
    assert find_split(tmp_path) is None

"""Which files of a folder are images, and of which class."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from elsa_ext.cli.data.folders import Class, describe_left_out, find_classes, refuse_telling_format, same_class
from elsa_ext.cli.errors import CommandError


def write(root: Path, *names: str) -> Path:
    """Write empty files, and return ``root``: what counts is the names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    left_out: Counter[str] = Counter()
    classes = find_classes(root, left_out)
    return {one.name: [os.path.relpath(image, root) for image in one.images] for one in classes}, left_out


def test_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, "red/2.png", "red/10.png", "Red/1.png", "猫/1.jpg", "a b/deeper/and deeper/1.jpg", "a b/0.jpg")
    classes, left_out = found(tmp_path)
    assert list(classes) == ["Red", "a b", "red", "猫"]
    assert classes["red"] == ["red/10.png", "red/2.png"]
    assert classes["a b"] == ["a b/0.jpg", "a b/deeper/and deeper/1.jpg"]
    assert not left_out


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._1.png", ".1.png.swp", ".ipynb_checkpoints/1-checkpoint.png", ".git/1.png"),
        *("__MACOSX/red/._1.png", "__MACOSX/1.png", "Thumbs.db", "thumbs.db", "desktop.ini", "Icon\r"),
        *("@eaDir/1.png/SYNOPHOTO_THUMB.jpg", "#recycle/1.png", "$RECYCLE.BIN/1.png", "lost+found/1.png"),
        *("System Volume Information/1.png", "__pycache__/1.png"),
    ],
)
def test_litter_is_no_image_and_no_class(tmp_path: Path, name: str) -> None:
    write(tmp_path, "red/1.png", "blue/1.png", name, f"red/{name}", f"red/deeper/{name}")
    classes, left_out = found(tmp_path)
    assert classes == {"blue": ["blue/1.png"], "red": ["red/1.png"]}
    assert not left_out


def test_all_that_pillow_decodes_are_images(tmp_path: Path) -> None:
    common = ["jpg", "JPG", "jpeg", "jpe", "jfif", "png", "PNG", "gif", "bmp", "tif", "TIFF", "webp"]
    extensions = [*common, "avif", "jp2", "mpo", "ppm", "pgm", "pbm", "tga", "ico", "psd", "qoi"]
    write(tmp_path, "red/1.png", *(f"blue/1.{extension}" for extension in extensions))
    classes, left_out = found(tmp_path)
    assert len(classes["blue"]) == len(extensions)
    assert not left_out


def test_other_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "red/1.png", "blue/1.png", "README.md", "cover.png")
    write(tmp_path, *(f"blue/{i}.TXT" for i in range(12)), "red/deep/label", "red/1.heic", "red/2.heic", "red/1.eps")
    classes, left_out = found(tmp_path)
    assert [len(images) for images in classes.values()] == [1, 1]
    assert describe_left_out(left_out) == (
        "left out 17 files: 12 .txt, 2 .heic, 1 image outside of the class folders, 1 .eps, 1 without extension"
    )


def test_names_that_are_counted_are_ordinary_ones(tmp_path: Path) -> None:
    write(tmp_path, "red/1.png", "blue/1.png", "red/a.\x1b[31m", "red/a.2024-05-01 10_11", "red/a.", "red/a.jpg~")
    assert describe_left_out(found(tmp_path)[1]) == "left out 4 files: 4 without extension"
    many = Counter({f".{letter}": 2 for letter in "abcdefg"})
    assert describe_left_out(many) == "left out 14 files: 2 .a, 2 .b, 2 .c, 2 .d, 2 .e, others"
    assert describe_left_out(Counter({".a": 1})) == "left out 1 file: 1 .a"


def test_links(tmp_path: Path) -> None:
    write(tmp_path / "store", "r/1.png", "r/2.png", "b/1.png")
    write(tmp_path / "data", "tan/1.png")
    os.symlink(tmp_path / "store" / "r", tmp_path / "data" / "red")
    os.symlink(tmp_path / "store" / "b", tmp_path / "data" / "blue")
    os.symlink(tmp_path / "store" / "r" / "1.png", tmp_path / "data" / "tan" / "linked.png")
    for target in ("data/tan", "data", "."):  # circles
        os.symlink(tmp_path / target, tmp_path / "data" / "tan" / f"to {target.replace('/', ' ')}")
    classes, _ = found(tmp_path / "data")
    assert classes == {
        "blue": ["blue/1.png"],
        "red": ["red/1.png", "red/2.png"],
        "tan": ["tan/1.png", "tan/linked.png"],
    }


@pytest.mark.parametrize("make", ["link", "pipe"])
def test_image_that_is_no_file(tmp_path: Path, make: str) -> None:
    write(tmp_path, "red/1.png", "blue/1.png")
    path = tmp_path / "red" / "2.png"
    os.symlink("nowhere.png", path) if make == "link" else os.mkfifo(path)
    with pytest.raises(CommandError, match=f"{path} is not a file"):
        found(tmp_path)


def test_class_without_an_image(tmp_path: Path) -> None:
    write(tmp_path, "red/1.png", "blue/1.png", "tan/1.txt", "tan/2.txt", "grey/.DS_Store")
    with pytest.raises(
        CommandError, match=f"{tmp_path} has classes without an image: grey, tan .*left out 2 files: 2 .txt"
    ):
        found(tmp_path)


def test_too_few_classes(tmp_path: Path) -> None:
    write(tmp_path, "1.png", ".ipynb_checkpoints/1.png")
    with pytest.raises(CommandError, match=f"{tmp_path} holds no class folder"):
        found(tmp_path)
    write(tmp_path, "archive/red/1.png")
    with pytest.raises(CommandError, match=f"{tmp_path} has one class, 'archive'; at least two are needed$"):
        found(tmp_path)
    write(tmp_path, "archive/blue/1.png")
    with pytest.raises(CommandError, match=f"is --data {tmp_path}/archive meant"):
        found(tmp_path)


def test_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "red/1.png", "blue/1.png")
    scandir = os.scandir

    def locked(path: str | Path) -> object:
        if Path(path).name == "red":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(CommandError, match=f"no permission to read the folder {tmp_path}/red"):
        found(tmp_path)


def test_one_class_in_two_encodings(tmp_path: Path) -> None:
    write(tmp_path, "red/1.png", *(f"{unicodedata.normalize(form, 'café')}/1.png" for form in ("NFC", "NFD")))
    with pytest.raises(CommandError, match=f"{tmp_path} holds café twice"):
        found(tmp_path)


def test_same_class() -> None:
    composed, apart = (unicodedata.normalize(form, "É") for form in ("NFC", "NFD"))
    assert same_class("red", ["RED", "red", "Red"]) == "red"
    assert same_class("Red", ["blue", "red"]) == "red"
    assert same_class("reD", ["RED", "red"]) is None
    assert same_class("pink", ["red"]) is None
    assert same_class(apart, ["red", composed]) == composed
    assert same_class(apart, [composed.lower(), composed]) == composed
    assert same_class(apart.lower(), ["e", composed]) == composed


def test_gifs_that_would_tell_the_class() -> None:
    def check(**formats: str) -> None:
        refuse_telling_format(Path("x"), [Class(name, kinds.split()) for name, kinds in formats.items()])

    check(red="1.gif 2.GIF", blue="1.gif")
    check(red="1.gif 2.png", blue="1.png", tan="1.jpg")
    check(red="1.gif", blue="1.gif 1.png")
    with pytest.raises(CommandError, match="x has classes of GIFs alone, red, tan, beside others"):
        check(red="1.gif 2.GIF", blue="1.png", tan="1.gif")

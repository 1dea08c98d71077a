"""``elsa-ext classify``: the right classes, whatever the image's size and mode."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from .conftest import Result, write_images

Command = Callable[..., Result]
LINE = re.compile(r"  +(\d+\.\d+)%  (.+)")


def answers(out: str) -> dict[str, list[tuple[str, float]]]:
    """Return the (class, percent) lines under each file name."""
    found: dict[str, list[tuple[str, float]]] = {}
    name = ""
    for line in out.splitlines():
        match = LINE.fullmatch(line)
        if match:
            found[name].append((match[2], float(match[1])))
        else:
            name = line
            found[name] = []
    return found


def test_round_trip(command: Command, trained: Path, tmp_path: Path) -> None:
    images = sorted(write_images(tmp_path, "red blue", 10).glob("*/*.png"))
    result = command("classify", trained / "checkpoint.pt", *images)
    assert (result.code, result.err) == (0, "")
    found = answers(result.out)
    assert list(found) == [str(image) for image in images]
    for lines in found.values():
        assert sorted(name for name, _ in lines) == ["blue", "red"]
        assert lines[0][1] >= lines[1][1]
        assert sum(percent for _, percent in lines) == pytest.approx(100, abs=0.01)
    assert all(lines[0][0] == Path(image).parent.name for image, lines in found.items())


def test_top(command: Command, trained: Path, tmp_path: Path) -> None:
    image = write_images(tmp_path, "red", 1) / "red" / "0.png"
    [lines] = answers(command("classify", trained / "checkpoint.pt", image, "--top", 1).out).values()
    assert [name for name, _ in lines] == ["red"]


def test_any_size(command: Command, trained: Path, tmp_path: Path) -> None:
    sizes = [(1, 1), (300, 500), (2000, 3)]
    images = [tmp_path / f"{width}x{height}.png" for width, height in sizes]
    for image, size in zip(images, sizes, strict=True):
        Image.new("RGB", size, "blue").save(image)
    found = answers(command("classify", trained / "checkpoint.pt", *images).out)
    assert [lines[0][0] for lines in found.values()] == ["blue"] * 3


def give_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Put ``content`` on the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder of red and blue images in folders, some with odd names, and litter."""
    album = write_images(tmp_path / "my album", "red blue", 5)
    for name in ("two\nlines.png", '"quoted", \u202f😀.png', os.fsdecode(b"donn\xe9es.png")):
        shutil.copy(album / "red" / "0.png", album / "red" / name)
    for litter in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (album / litter).write_text("")
    (album / "blue" / "again").symlink_to(album)  # a circle
    return album


@pytest.mark.thorough
def test_folder_is_walked_as_by_train(command: Command, trained: Path, album: Path) -> None:
    result = command("classify", trained / "checkpoint.pt", album, "--top", 1)
    assert (result.code, result.err) == (0, "")
    shown = [line.removeprefix(f"{album}/") for line in result.out.splitlines()[::2]]
    odd = ['"quoted", \u202f😀.png', *(f"{n}.png" for n in range(5)), "donn\\xe9es.png", "two\\nlines.png"]
    assert shown == [f"blue/{n}.png" for n in range(5)] + [f"red/{name}" for name in odd]
    assert [line.split()[-1] for line in result.out.splitlines()[1::2]] == ["blue"] * 5 + ["red"] * 8


@pytest.mark.thorough
def test_broken_images_in_a_folder(command: Command, trained: Path, album: Path) -> None:
    (album / "red" / "1.png").write_text("no image")
    (album / "red" / "2.png").unlink()
    (album / "red" / "2.png").symlink_to("nowhere")
    result = command("classify", trained / "checkpoint.pt", album, "--batch-size", 4)
    assert result.code == 2 and len(answers(result.out)) == 11
    assert result.err.splitlines() == [
        f"elsa-ext classify: cannot read {album}/red/1.png as an image: it is damaged, or of another kind",
        f"elsa-ext classify: {album}/red/2.png is not a file, or is a link to nothing",
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
def test_list_on_the_standard_input(
    command: Command, trained: Path, album: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    names = ["blue/3.png", "red/4.png", "blue/0.png", *(["red/two\nlines.png"] if end == b"\0" else [])]
    give_input(monkeypatch, b"".join(os.fsencode(album / name) + end for name in names))
    result = command("classify", trained / "checkpoint.pt", album / "red" / "3.png", "-", "--json", "--batch-size", 3)
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert [image["image"] for image in found] == [str(album / name) for name in ["red/3.png", *names]]
    assert [image["classes"][0]["class"] for image in found[1:4]] == ["blue", "red", "blue"]


@pytest.mark.thorough
def test_empty_list(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.TextIOWrapper(io.BytesIO(b"\n\n")), None):
        monkeypatch.setattr(sys, "stdin", stream)
        result = command("classify", trained / "checkpoint.pt", "-")
        assert result.code == 2 and "the standard input names no image" in result.err and result.out == ""


@pytest.mark.thorough
def test_batches_change_nothing_but_the_last_digits(command: Command, trained: Path, album: Path) -> None:
    (album / "red" / "1.png").write_text("no image")
    runs = [
        command("classify", trained / "checkpoint.pt", album, "--json", "--batch-size", size) for size in (1, 3, 100)
    ]
    alone, *together = [json.loads(run.out) for run in runs]
    assert len(alone) == 13 and {run.code for run in runs} == {2}
    for found in together:
        for one, other in zip(alone, found, strict=True):
            assert one.keys() == other.keys() and one["image"] == other["image"]
            for first, second in zip(one.get("classes", []), other.get("classes", []), strict=True):
                assert first["class"] == second["class"]
                assert first["probability"] == pytest.approx(second["probability"], abs=1e-6)
    [bad] = [image for image in alone if "error" in image]
    assert bad["image"] == f"{album}/red/1.png" and bad["error"].startswith(f"cannot read {album}/red/1.png")


@pytest.mark.thorough
def test_csv(command: Command, trained: Path, album: Path) -> None:
    (album / "red" / "1.png").write_text("no image")
    result = command("classify", trained / "checkpoint.pt", album, "--csv", "--batch-size", 5)
    assert result.code == 2 and result.out.count("\r\n") == 25
    header, *rows = csv.reader(io.StringIO(result.out, newline=""))
    assert header == ["image", "rank", "class", "probability"]
    documents = json.loads(command("classify", trained / "checkpoint.pt", album, "--json", "--batch-size", 5).out)
    expected = [
        (
            image["image"].replace("\udce9", "\\udce9"),
            rank,
            answer["class"],
            pytest.approx(answer["probability"], rel=1e-6),
        )
        for image in documents
        for rank, answer in enumerate(image.get("classes", []), start=1)
    ]
    assert [(row[0], int(row[1]), row[2], float(row[3])) for row in rows] == expected


@pytest.mark.thorough
def test_the_reader_of_a_long_answer_leaves(trained: Path, album: Path) -> None:
    call = f"{sys.executable} -m elsa_ext classify {trained}/checkpoint.pt '{album}' --csv"
    process = subprocess.run(
        ["bash", "-c", f"{call} | head -2; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (process.returncode, process.stderr) == (1, "") and process.stdout.count("\n") == 2

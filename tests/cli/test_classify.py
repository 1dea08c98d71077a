"""``elsa-ext classify``: the right classes, whatever the image's size and mode."""

import re
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

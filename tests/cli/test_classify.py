"""``elsa-ext classify``: the right classes, whatever the image's size and mode."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elsa_ext.cli.images import load_image
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


GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "I"])
def test_modes_look_alike(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tiff" if mode == "I" else "image.png")
    if mode.startswith("I"):
        Image.fromarray(GREY.astype(np.uint16 if mode == "I;16" else np.int32) * 257).save(path)
    else:
        Image.fromarray(GREY).convert(mode).save(path)
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    np.testing.assert_array_equal(np.asarray(image), np.repeat(GREY[:, :, None], 3, 2))


def test_black_and_white_and_print_colours(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "one.png")
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "one.png"))[..., 0], (GREY > 100) * 255)
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "red.tiff")
    assert load_image(tmp_path / "red.tiff").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (9, 9, 9, 255))
    image = image if mode == "RGBA" else image.quantize(4)
    image.save(tmp_path / "image.png")
    loaded = load_image(tmp_path / "image.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]


def test_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (4, 8)

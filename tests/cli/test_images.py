"""Reading an image file: the right colours in every mode, or a refusal that names the file and the cause."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from elsa_ext.cli.data.images import load_image
from elsa_ext.cli.errors import CommandError
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageCms

from .raw_files import png, tiff

GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
ALPHA = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
PALETTE = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def from_mode(values: ArrayLike, mode: str, kind: str, **options: object) -> bytes:
    return saved(Image.fromarray(np.asarray(values)).convert(mode), kind, **options)


def read(folder: Path, content: bytes) -> NDArray[np.int64]:
    (folder / "image").write_bytes(content)
    image = load_image(folder / "image")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def on_white(values: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    share = alpha[..., None] / 255
    return np.rint(values * share + 255 * (1 - share))


def deep(values: NDArray[np.uint8], kind: str = "<u2") -> NDArray[np.uint16]:
    return (values.astype(int) * 257).astype(kind)


GREYS = {
    "L": from_mode(GREY, "L", "PNG"),
    "RGB": from_mode(GREY, "RGB", "PNG"),
    "RGBA": from_mode(GREY, "RGBA", "PNG"),
    "LA": from_mode(GREY, "LA", "PNG"),
    "P": from_mode(GREY, "P", "PNG"),
    "GIF": from_mode(GREY, "L", "GIF"),
    "BMP": from_mode(GREY, "RGB", "BMP"),
    "8-bit TIFF, big-endian": tiff(GREY.astype(">u1")),
    "8-bit TIFF, white is zero": tiff(255 - GREY, photometric=0),
    "16-bit PNG": saved(Image.fromarray(deep(GREY)), "PNG"),
    "16-bit PNG with alpha": png(np.stack([deep(GREY), np.full_like(deep(GREY), 65535)], 2).astype(">u2"), 16, 4),
    "16-bit PGM, mode I": saved(Image.fromarray(GREY.astype(np.int32) * 257), "PPM"),
    "16-bit TIFF, little-endian": tiff(deep(GREY)),
    "16-bit TIFF, big-endian": tiff(deep(GREY, ">u2")),
    "16-bit TIFF, big-endian, compressed": tiff(deep(GREY, ">u2"), t259=8),
    "16-bit TIFF, white is zero": tiff(deep(255 - GREY), photometric=0),
    "16-bit TIFF, white is zero, compressed": tiff(deep(255 - GREY), photometric=0, t259=8),
    "16-bit JPEG 2000": saved(Image.fromarray(deep(GREY)), "JPEG2000"),
    "float TIFF": tiff((GREY / 255).astype("<f4"), t339=3),
    "float TIFF, big-endian": tiff((GREY / 255).astype(">f4"), t339=3),
    "float TIFF, white is zero": tiff((1 - GREY / 255).astype("<f4"), photometric=0, t339=3),
    "float PFM": saved(Image.fromarray((GREY / 255).astype("f4")), "PPM"),
}


@pytest.mark.parametrize("name", GREYS)
def test_greys(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, GREYS[name]), np.repeat(GREY[..., None], 3, 2))


def test_black_and_white(tmp_path: Path) -> None:
    picture = read(tmp_path, saved(Image.fromarray(GREY > 100), "PNG"))
    np.testing.assert_array_equal(picture[..., 0], (GREY > 100) * 255)


def test_greys_of_12_bits(tmp_path: Path) -> None:
    levels = [0, 1000, 2048, 4095]
    packed = np.frombuffer(int("".join(f"{level:03x}" for level in levels), 16).to_bytes(6, "big"), np.uint8)
    content = tiff(packed[None], bits=12, t256=4)
    assert read(tmp_path, content)[0, :, 0].tolist() == [round(level * 255 / 4095) for level in levels]


PICTURES = {
    "RGB, 16 bits": (png(deep(COLOUR, ">u2"), 16, 2), COLOUR),
    "RGB TIFF, 16 bits, big-endian": (tiff(deep(COLOUR, ">u2"), photometric=2), COLOUR),
    "RGB TIFF in planes": (tiff(COLOUR, photometric=2, planar=2), COLOUR),
    "RGB TIFF, 16 bits, in compressed planes": (tiff(deep(COLOUR), photometric=2, planar=2, t259=8), COLOUR),
    "RGBX TIFF": (tiff(np.dstack([COLOUR, ALPHA]), photometric=2, t338=0), COLOUR),
    "RGBA PNG": (saved(Image.fromarray(np.dstack([COLOUR, ALPHA])), "PNG"), on_white(COLOUR, ALPHA)),
    "RGBA WebP": (
        saved(Image.fromarray(np.dstack([COLOUR, ALPHA])), "WEBP", lossless=True, exact=True),
        on_white(COLOUR, ALPHA),
    ),
    "RGBA TIFF, alpha multiplied in": (
        tiff(np.dstack([np.rint(COLOUR * (ALPHA[..., None] / 255)).astype("u1"), ALPHA]), photometric=2, t338=1),
        on_white(COLOUR, ALPHA),
    ),
    "LA": (
        saved(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"),
        on_white(np.repeat(GREY[..., None], 3, 2), ALPHA),
    ),
    "La": (
        tiff(np.dstack([np.rint(GREY * (ALPHA / 255)).astype("u1"), ALPHA]), t338=1),
        on_white(np.repeat(GREY[..., None], 3, 2), ALPHA),
    ),
    "P": (png(GREY, 8, 3, (b"PLTE", PALETTE.tobytes())), PALETTE[GREY]),
    "P with an alpha per colour": (
        png(GREY, 8, 3, (b"PLTE", PALETTE.tobytes()), (b"tRNS", bytes(range(256)))),
        on_white(PALETTE[GREY], GREY),
    ),
    "P with one transparent colour": (
        png(GREY, 8, 3, (b"PLTE", PALETTE.tobytes()), (b"tRNS", b"\xff" * 8 + b"\0")),
        np.where(GREY[..., None] == 8, 255, PALETTE[GREY]),
    ),
    "PA": (
        tiff(np.dstack([GREY, ALPHA]), photometric=3, t338=2, t320=tuple(deep(PALETTE.T).ravel().tolist())),
        on_white(PALETTE[GREY], ALPHA),
    ),
    "P TIFF with a palette of 8 bits": (
        tiff(GREY, photometric=3, t320=tuple(PALETTE.T.ravel().tolist())),
        PALETTE[GREY],
    ),
    "CMYK TIFF": (
        tiff(np.dstack([COLOUR, ALPHA]), photometric=5),
        np.rint((255.0 - COLOUR) * (255.0 - ALPHA[..., None]) / 255),
    ),
    "CMYK TIFF, 16 bits": (
        tiff(deep(np.dstack([COLOUR, ALPHA])), photometric=5),
        np.rint((255.0 - COLOUR) * (255.0 - ALPHA[..., None]) / 255),
    ),
    "transparent grey of 16 bits": (
        png(np.array([[0, 1000, 1001, 65535]], ">u2"), 16, 0, (b"tRNS", struct.pack(">H", 1000))),
        [[[grey] * 3 for grey in (0, 255, 4, 255)]],
    ),
    "transparent grey of 2 bits": (
        png(np.array([[0b00011011]], "u1"), 2, 0, (b"tRNS", struct.pack(">H", 2)), width=4),
        [[[grey] * 3 for grey in (0, 85, 255, 255)]],
    ),
    "transparent grey of 4 bits": (
        png(np.array([[0x05, 0x9F]], "u1"), 4, 0, (b"tRNS", struct.pack(">H", 5)), width=4),
        [[[grey] * 3 for grey in (0, 255, 153, 255)]],
    ),
    "transparent black of 1 bit": (
        png(np.array([[0xF0]], "u1"), 1, 0, (b"tRNS", struct.pack(">H", 0)), width=8),
        [[[255] * 3] * 8],
    ),
    "transparent colour": (
        png(np.array([[[1, 2, 3], [4, 5, 6]]], "u1"), 8, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3))),
        [[[255] * 3, [4, 5, 6]]],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_colours(tmp_path: Path, name: str) -> None:
    content, expected = PICTURES[name]
    np.testing.assert_allclose(read(tmp_path, content), expected, atol=1, rtol=0)


RED = Image.new("RGB", (16, 16), (200, 40, 90))
LAB = ImageCms.profileToProfile(RED, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
assert LAB is not None
RED_FILES = {
    "JPEG": saved(RED, "JPEG", quality=95),
    "CMYK JPEG as Adobe writes it": saved(RED.convert("CMYK"), "JPEG", quality=95),
    "YCbCr TIFF": saved(RED.convert("YCbCr"), "TIFF"),
    "LAB TIFF": saved(LAB, "TIFF"),
    "TGA": saved(RED, "TGA"),
    "first frame of a GIF": saved(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")]),
    "first frame of an APNG": saved(RED, "PNG", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")]),
    "first page of a TIFF": saved(RED, "TIFF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")]),
}


@pytest.mark.parametrize("name", RED_FILES)
def test_one_colour(tmp_path: Path, name: str) -> None:
    np.testing.assert_allclose(read(tmp_path, RED_FILES[name]), np.asarray(RED), atol=3, rtol=0)


def jpeg_2000(depth: int) -> bytes:
    """A JPEG 2000 whose header claims another depth than it has: what counts is that it is refused for it."""
    content = bytearray(saved(RED, "JPEG2000", no_jp2=True))
    for channel in range(3):
        content[42 + 3 * channel] = depth - 1
    return bytes(content)


def fits(pixels: NDArray[np.uint16]) -> bytes:
    cards = {"SIMPLE": "T", "BITPIX": 16, "NAXIS": 2, "NAXIS1": pixels.shape[1], "NAXIS2": pixels.shape[0]}
    lines = [f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()]
    return "".join([*lines, "END".ljust(80)]).ljust(2880).encode() + pixels.tobytes()


REFUSED = {
    "16-bit signed TIFF": (tiff(GREY.astype("<i2"), t339=2), "signed integers"),
    "8-bit signed TIFF": (tiff(GREY.astype("i1"), t339=2), "signed integers"),
    "32-bit signed TIFF": (tiff(GREY.astype("<i4"), t339=2), "signed integers"),
    "32-bit TIFF": (tiff(GREY.astype("<u4") * 2**24), "integers of more than 8 bits in a file of format TIFF"),
    "16-bit FITS": (fits(deep(GREY, ">i2")), "integers of more than 8 bits in a file of format FITS"),
    "float TIFF of 0 to 255": (tiff(GREY.astype("<f4"), t339=3), "not between 0 and 1"),
    "float TIFF below 0": (tiff((GREY / 255 - 0.1).astype("<f4"), t339=3), "not between 0 and 1"),
    "float TIFF with a NaN": (tiff(np.full((2, 2), np.nan, "<f4"), t339=3), "not between 0 and 1"),
    "float TIFF, big-endian, compressed": (tiff(np.ones((2, 2), ">f4"), t339=3, t259=8), "big-endian floats"),
    "16-bit TIFF in planes": (tiff(deep(COLOUR), photometric=2, planar=2), "separate planes"),
    "LA TIFF in compressed planes": (
        tiff(np.dstack([GREY, ALPHA]), planar=2, t338=2, t259=8),
        "separate planes",
    ),
    "transparent colour of 16 bits": (
        png(deep(COLOUR, ">u2"), 16, 2, (b"tRNS", struct.pack(">3H", 1, 2, 3))),
        "16 bits per channel and a transparent colour",
    ),
    "JPEG 2000 of 12 bits": (jpeg_2000(12), "JPEG 2000 of other than 8 bits"),
    "JPEG 2000 of 1 bit": (jpeg_2000(1), "JPEG 2000 of other than 8 bits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    content, cause = REFUSED[name]
    with pytest.raises(CommandError, match="image as an image: ") as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"cannot read {tmp_path}/image as an image: ")
    assert cause in str(caught.value)


def test_dark_and_bright_pictures_are_scaled_alike(tmp_path: Path) -> None:
    for kind in ("<u2", ">u2"):
        dark, bright = (read(tmp_path, tiff(np.full((2, 2), level, kind))) for level in (255, 65535))
        assert (dark.max(), bright.min()) == (1, 255)


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter
EXIF[0x010F] = "Maker"
TURNED = EXIF.tobytes()
BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "no header": b"Exif\0\0" + b"\xff" * 40,
    "cut off": TURNED[:20],
    "table beyond the end": TURNED[:10] + b"\xff\xff\xff\x7f",
    "orientation as text": TURNED.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02"),
    "orientation 9": TURNED.replace(b"\x00\x06\x00\x00", b"\x00\x09\x00\x00"),
}
HALVES = Image.fromarray(np.repeat(np.array([[0, 255]], "u1"), [8, 8], 1).repeat(4, 0)).convert("RGB")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_upright(tmp_path: Path, kind: str) -> None:
    picture = read(tmp_path, saved(HALVES, kind, exif=TURNED))
    assert picture.shape == (16, 4, 3)
    assert picture[:7].max() < 20 and picture[9:].min() > 235


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("fault", BROKEN_EXIF)
def test_broken_exif(tmp_path: Path, kind: str, fault: str) -> None:
    picture = read(tmp_path, saved(HALVES, kind, exif=BROKEN_EXIF[fault]))
    assert picture.shape == (4, 16, 3)
    np.testing.assert_allclose(picture, np.asarray(HALVES), atol=20)


GOOD_TEXT = (b"tEXt", b"Comment\0text")
METADATA = {
    "text that unpacks to 3 MB": [(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))],
    "profile that unpacks to 3 MB": [(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000)))],
    "unknown compression": [(b"zTXt", b"Comment\0\7" + bytes(9)), GOOD_TEXT],
    "short resolution": [(b"pHYs", b"\0")],
}


@pytest.mark.parametrize("name", METADATA)
def test_png_with_metadata_that_pillow_rejects(tmp_path: Path, name: str) -> None:
    exif = (b"eXIf", TURNED[6:])
    content = png(np.array([[10, 20]], "u1"), 8, 0, exif, *METADATA[name], (b"tRNS", b"\0\x0a"))
    assert read(tmp_path, content)[..., 0].tolist() == [[255], [20]]  # upright and transparent all the same


def test_png_with_a_wrong_checksum_of_metadata(tmp_path: Path) -> None:
    content = png(np.array([[10, 20]], "u1"), 8, 0, (b"eXIf", TURNED[6:]))
    broken = content.replace(b"Maker", b"Baker")
    assert broken != content
    assert read(tmp_path, broken)[..., 0].tolist() == [[10, 20]]


def test_png_with_damaged_pixels(tmp_path: Path) -> None:
    content = png(COLOUR, 8, 2, GOOD_TEXT)
    start = content.index(b"IDAT") + 4
    for bad in (content[: start + 40], content[:start] + bytes(40) + content[start + 40 :]):
        with pytest.raises(CommandError, match="damaged"):
            read(tmp_path, bad)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_cut_off(tmp_path: Path, kind: str) -> None:
    content = saved(Image.fromarray(COLOUR).resize((64, 64)), kind)
    with pytest.raises(CommandError, match=f"cannot read {tmp_path}/image as an image: it is damaged"):
        read(tmp_path, content[: len(content) * 2 // 3])


def test_limit_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = png(np.zeros((10, 2), "u1"), 1, 0, width=16)
    monkeypatch.setenv("ELSA_MAX_IMAGE_PIXELS", "160")
    assert read(tmp_path, content).shape == (10, 16, 3)
    for limit in ("159", "80", "1"):  # Pillow only warns from its limit to twice that
        monkeypatch.setenv("ELSA_MAX_IMAGE_PIXELS", limit)
        with pytest.raises(CommandError, match=rf"{tmp_path}/image as .*more than {limit} pixels") as caught:
            read(tmp_path, content)
        assert "ELSA_MAX_IMAGE_PIXELS" in str(caught.value) and "damaged" not in str(caught.value)
    for bad in ("", "0", "-1", "many"):
        monkeypatch.setenv("ELSA_MAX_IMAGE_PIXELS", bad)
        with pytest.raises(CommandError, match=f"ELSA_MAX_IMAGE_PIXELS is '{bad}'"):
            read(tmp_path, content)


def test_large_picture_is_read_without_a_warning(tmp_path: Path) -> None:
    """A picture between what Pillow warns of and what it refuses; the crops of the transforms do not warn either."""
    side = 9472  # 89.7 million pixels
    image = png(np.zeros((side, side // 8), "u1"), 1, 0, width=side)
    (tmp_path / "image").write_bytes(image)
    loaded = load_image(tmp_path / "image")
    assert loaded.crop((0, 0, side, side)).size == (side, side)


def test_no_picture_and_larger_than_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "image").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CommandError, match=f"cannot read {tmp_path}/image as an image: it is damaged"):
        load_image(tmp_path / "image")


def test_faults_of_the_disk(tmp_path: Path) -> None:
    name = "x" * 300
    with pytest.raises(CommandError, match=f"cannot read {tmp_path}/{name}: File name too long"):
        load_image(tmp_path / name)
    os.symlink("circle", tmp_path / "circle")
    with pytest.raises(CommandError, match=f"cannot read {tmp_path}/circle: "):
        load_image(tmp_path / "circle")

"""Read one image file, the same way for training and for classification."""

import io
import os
import warnings
import zlib
from typing import BinaryIO

from PIL import ExifTags, Image

from ..errors import CommandError
from .colours import to_rgb

LIMIT = "ELSA_MAX_IMAGE_PIXELS"
"""Environment variable: a picture of more pixels is refused, since it may be a small file made to fill the memory."""

DEFAULT_LIMIT = 178_956_970  # where Pillow itself stops; it warns from half of that

TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by its EXIF orientation."""

PNG = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the first frame of a file of any format that Pillow reads as RGB: upright, transparent pixels on white.

    Raises:
        CommandError: The file is missing, or is not an image, or is damaged, or is too large, or its colours are
            not known.
    """
    path = os.fspath(path)
    # For the whole process: the crops of the transforms are held to it as well.
    Image.MAX_IMAGE_PIXELS = pixel_limit()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return read(path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise CommandError(
            f"cannot read {path} as an image: it has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit against "
            f"files made to fill the memory; if you trust it, set the environment variable {LIMIT} to more"
        ) from None
    except CommandError as error:
        raise CommandError(f"cannot read {path} as an image: {error}") from None
    except MemoryError:
        raise CommandError(f"not enough memory to read {path}") from None
    except FileNotFoundError:
        raise CommandError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise CommandError(f"{path} is a folder, not an image") from None
    except PermissionError:
        raise CommandError(f"no permission to read {path}") from None
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes lead them to
        if isinstance(error, OSError) and error.errno:  # of the disk, not of the bytes
            raise CommandError(f"cannot read {path}: {error.strerror}") from error
        raise CommandError(f"cannot read {path} as an image: it is damaged, or of another kind") from error


def pixel_limit() -> int:
    """Return how many pixels a picture may have."""
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    if not text.isdecimal() or int(text) == 0:
        raise CommandError(f"{LIMIT} is {text!r}; a whole number of pixels >= 1 is expected")
    return int(text)


def read(path: str) -> Image.Image:
    """Decode a file; a PNG with metadata that Pillow rejects is decoded without them."""
    try:
        return decode(path)
    except (CommandError, MemoryError):
        raise
    except Exception:
        with open(path, "rb") as file:
            if file.read(len(PNG)) != PNG:  # whatever it is, it may be too large for the memory
                raise
            content = PNG + file.read()
        return decode(io.BytesIO(without_metadata(content)))


def decode(source: str | BinaryIO) -> Image.Image:
    """Return an image file's picture as RGB and upright."""
    with Image.open(source) as image:
        picture = to_rgb(image)
        turn = needed_turn(image)
    return picture if turn is None else picture.transpose(turn)


def needed_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what puts the picture of a loaded file upright: nothing, if its EXIF data are broken."""
    try:
        return TURN.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises whatever the broken bytes lead it to
        return None


def without_metadata(png: bytes) -> bytes:
    """Return a PNG file without its texts and profiles, and without an EXIF chunk whose checksum is wrong."""
    kept, start = [PNG], len(PNG)
    while start < len(png):
        size = int.from_bytes(png[start : start + 4], "big")
        body, end = png[start + 4 : start + 8 + size], start + 12 + size
        checked = zlib.crc32(body).to_bytes(4, "big") == png[end - 4 : end]
        if body[:4] in PNG_PIXELS or (body[:4] == b"eXIf" and checked):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)

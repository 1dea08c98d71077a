"""The colours of an opened picture of any mode, as 8-bit RGB: converted by a rule that its format fixes, or refused.

No rule looks at how bright a picture is: two pictures of one folder are never scaled differently.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from ..errors import CommandError

UNSIGNED_16 = {"JPEG2000", "PNG", "PPM"}
"""Formats whose greys of more than 8 bits Pillow gives as 0 to 65535, whatever depth the file has."""

GREY_STEP = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies greys of 2 and of 4 bits by."""

# Tags of TIFF, and what they say.
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR, COLOUR_MAP, SAMPLE_FORMAT = 258, 262, 284, 320, 339
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2


def to_rgb(file: ImageFile.ImageFile) -> Image.Image:
    """Return the first frame as RGB, transparent pixels as white.

    Raises:
        CommandError: Nothing says which colours the numbers in the file stand for.
    """
    refuse_misread(file)
    stored = stored_mode(file)
    file.load()
    image: Image.Image = file
    if file.mode == "F" or file.mode.startswith("I"):
        return Image.fromarray(deep_greys(file)).convert("RGB")
    if file.mode == "La":
        image = file.convert("LA")
    if file.mode in ("P", "PA"):
        widen_palette(file)
    if image.has_transparency_data:
        mend_transparent_colour(file, stored)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def refuse_misread(file: ImageFile.ImageFile) -> None:
    """Raise a ``CommandError`` if Pillow would load an open file without an error, but with wrong colours."""
    if SIGNED in tiff_tag(file, SAMPLE_FORMAT, (1,)):
        raise unknown_white("signed integers")
    decoder = file.tile[0][0] if file.tile else ""
    if tiff_tag(file, PLANAR, 1) == SEPARATE:
        deep = max(tiff_tag(file, BITS_PER_SAMPLE, (1,))) > 8
        if (deep and decoder == "raw") or file.mode in ("LA", "La"):
            raise CommandError("it is a TIFF of separate planes, which Pillow mixes up; save it with channels together")
    big_endian = isinstance(file, TiffImagePlugin.TiffImageFile) and file.tag_v2.prefix == b"MM"
    if file.mode == "F" and decoder == "libtiff" and big_endian:
        raise CommandError("it is a TIFF of compressed big-endian floats, of which Pillow mixes up the bytes")
    if file.format == "JPEG2000":
        depths = jpeg2000_depths(file)
        if any(depth != 8 for depth in depths) and not (len(depths) == 1 and 8 < depths[0] <= 16):
            raise CommandError("it is a JPEG 2000 of other than 8 bits per channel, of which Pillow makes white black")


def jpeg2000_depths(file: ImageFile.ImageFile) -> list[int]:
    """Return the bits per channel from the SIZ segment of an open JPEG 2000 file."""
    assert file.fp is not None  # an open file has one
    file.fp.seek(0)
    _, _, segment = file.fp.read().partition(b"\xff\x4f\xff\x51")
    channels = int.from_bytes(segment[36:38], "big")
    return [(byte & 0x7F) + 1 for byte in segment[38 : 38 + 3 * channels : 3]]


def stored_mode(file: ImageFile.ImageFile) -> str:
    """Return Pillow's raw mode of a file that is open but not loaded yet, such as "RGB;16B": the mode on the disk."""
    if not file.tile:
        return ""
    arguments = file.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def tiff_tag(file: ImageFile.ImageFile, tag: int, default: Any) -> Any:
    """Return a tag's value, or ``default`` where there is none or the file is no TIFF."""
    return file.tag_v2.get(tag, default) if isinstance(file, TiffImagePlugin.TiffImageFile) else default


def unknown_white(numbers: str) -> CommandError:
    """Return the refusal of pixels that are ``numbers``."""
    return CommandError(f"its pixels are {numbers}, and nothing says which number is white; save it with 8 or 16 bits")


def deep_greys(file: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Return greys of more than 8 bits as 0 to 255, transparent ones as 255."""
    values = np.asarray(file)
    if file.mode == "F":
        if not ((values >= 0) & (values <= 1)).all():
            raise CommandError("its pixels are floating-point numbers, of which some are not between 0 and 1")
        greys = np.rint(values * 255)
    else:
        white = white_level(file)
        greys = (values.astype(np.uint32) * 255 + white // 2) // white
    if tiff_tag(file, PHOTOMETRIC, None) == WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
        greys = 255 - greys
    if "transparency" in file.info:
        greys = np.where(values == file.info["transparency"], 255, greys)
    return greys.astype(np.uint8)


def white_level(file: ImageFile.ImageFile) -> int:
    """Return the integer that stands for white in an image of mode I or I;16."""
    if file.format in UNSIGNED_16:
        return 2**16 - 1
    bits: int = tiff_tag(file, BITS_PER_SAMPLE, (32,))[0]
    if bits > 16:
        raise unknown_white(f"integers of more than 8 bits in a file of format {file.format}")
    return 2**bits - 1


def widen_palette(file: ImageFile.ImageFile) -> None:
    """Read a TIFF's palette again if a program wrote its colours as 0 to 255, where 0 to 65535 is the rule.

    Libtiff tells them apart in the same way; Pillow makes such a picture black.
    """
    colours = tiff_tag(file, COLOUR_MAP, ())
    if 0 < max(colours, default=0) < 256:
        file.putpalette(np.array(colours, np.uint8).reshape(3, -1).T.tobytes())


def mend_transparent_colour(file: ImageFile.ImageFile, stored: str) -> None:
    """Give a PNG's one transparent colour in the depth of the loaded pixels; Pillow leaves it as the file has it."""
    if "transparency" not in file.info or file.format != "PNG":
        return
    if stored == "RGB;16B":
        raise CommandError("it has 16 bits per channel and a transparent colour, which Pillow reads in 8 bits")
    if stored in GREY_STEP:
        file.info["transparency"] *= GREY_STEP[stored]

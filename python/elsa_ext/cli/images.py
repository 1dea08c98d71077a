"""Read one image file, the same way for training and for classification."""

import os

from PIL import Image, ImageOps

from .errors import CommandError


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the image of any format and mode as RGB: upright, transparent pixels on white, 16-bit greys scaled.

    Raises:
        CommandError: The file is missing, or is not an image, or is damaged.
    """
    path = os.fspath(path)
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise CommandError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise CommandError(f"{path} is a folder, not an image") from None
    except PermissionError:
        raise CommandError(f"no permission to read {path}") from None
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes lead them to
        raise CommandError(f"cannot read {path} as an image: it is damaged, or of another kind") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` of any mode as RGB."""
    if image.mode.startswith("I"):  # 16-bit greys, which convert() would clip at 255
        image = image.point(lambda grey: grey * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")

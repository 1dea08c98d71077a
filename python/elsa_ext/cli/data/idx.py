"""Data sets in the files of MNIST (idx), such as Fashion-MNIST, as Debian and torchvision lay them."""

import gzip
import math
from pathlib import Path

import numpy as np

from ..errors import CommandError

FASHION_CLASSES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]
FASHION_RAW = "FashionMNIST/raw"
PLACES = (f"data/{FASHION_RAW}", FASHION_RAW, "/usr/share/datasets/fashion-mnist")
"""Where Fashion-MNIST is looked for: where torchvision puts it, given "data" or ".", and where Debian does."""

Labelled = list[tuple[np.ndarray, int]]


def find_fashion() -> Path:
    """Return the folder of Fashion-MNIST.

    Raises:
        CommandError: It is in none of its places.
    """
    for place in map(Path, PLACES):
        if has_idx(place):
            return place
    raise CommandError(
        f"--data fashion-mnist: its files are in none of {', '.join(PLACES)}; on Debian: apt install "
        "dataset-fashion-mnist, elsewhere --data FOLDER with train-images-idx3-ubyte.gz and its like"
    )


def has_idx(folder: Path) -> bool:
    """Tell whether a folder holds images in the files of MNIST."""
    return any((folder / f"train-images-idx3-ubyte{end}").is_file() for end in ("", ".gz"))


def read_idx(folder: Path) -> tuple[Labelled, Labelled]:
    """Return the labelled images to train and to test on, each an (height, width) array of bytes.

    Raises:
        CommandError: A file is missing, damaged, or of another kind.
    """
    parts = []
    for name in ("train", "t10k"):
        images = read(folder / f"{name}-images-idx3-ubyte", 3)
        labels = read(folder / f"{name}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise CommandError(f"{folder} has {len(images)} images and {len(labels)} labels of {name}")
        parts.append(list(zip(images, labels.tolist(), strict=True)))
    return parts[0], parts[1]


def read(path: Path, dimensions: int) -> np.ndarray:
    """Return the bytes in an idx file of so many dimensions, compressed by gzip or not."""
    zipped = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(zipped.read_bytes())
    except FileNotFoundError:
        raise CommandError(f"no such file: {path}, nor with .gz") from None
    except (OSError, EOFError) as error:
        raise CommandError(f"{zipped} is damaged: {error}") from error
    start = 4 * (1 + dimensions)
    shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != start + math.prod(shape):
        raise CommandError(f"{path} is damaged, or no idx file of bytes in {dimensions} dimensions")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

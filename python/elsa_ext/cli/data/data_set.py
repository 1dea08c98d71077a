"""The images to train and to test on: a data set by its name, or a folder of the user."""

import argparse
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import Compose, InterpolationMode, RandomAffine, RandomHorizontalFlip

from ..errors import CommandError
from .folders import Class, describe_left_out, find_classes, refuse_telling_format, same_class, subfolders
from .idx import FASHION_CLASSES, FASHION_RAW, find_fashion, has_idx, read_idx
from .images import load_image
from .splits import find_split

Transform = Callable[[Any], Tensor]
Files = list[tuple[str, int]]


class Images(Dataset[Any]):
    """Images in memory, or paths of images, each with its label, transformed when they are asked for."""

    def __init__(self, labelled: Sequence[tuple[Any, int]], transform: Transform) -> None:
        self.labelled = labelled
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.labelled[index]
        return self.transform(image), label


@dataclass
class Data:
    """Two sets of (image, class index), the names of the classes, and, by file name, images to try `classify` on."""

    train: Images
    test: Images
    classes: list[str]
    input_size: tuple[int, int, int]
    """Channels, height and width of a transformed image."""
    samples: dict[str, Image.Image] = field(default_factory=dict)


DIGITS, FASHION = "digits", "fashion-mnist"
IDX, FILES = "idx", "files"
MILD = {"scale": (0.5, 1.0), "color_jitter": 0.4, "auto_augment": None}
"""How a folder's images are augmented: timm's own crops, down to a twelfth, are meant for hundreds of epochs."""


def source_name(data: str | None) -> str:
    """Return what to call the data that ``--data`` names."""
    return DIGITS if data is None else os.path.basename(os.path.realpath(data)) or "root"


def load_data(args: argparse.Namespace, config: dict[str, Any]) -> Data:
    """Return the images that ``args`` ask for.

    Args:
        args: With ``data``, a folder's path, or the name of a data set unless there is such a folder; ``seed``, and
            how to augment.
        config: What timm's ``create_transform`` needs of the model: ``input_size``, ``mean``, ``std``, …

    Raises:
        CommandError: They are not there or not as they must be, or are not to be augmented so.
    """
    kind, root = locate(args.data)
    of_files = kind == FILES
    odd = sorted({"auto_augment", "color_jitter", "crop_scale"} & args.given) if not of_files else []
    if odd:
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in odd)
        raise CommandError(f"{flags}: for folders of images alone; is --data FOLDER missing?")
    data = folder(root, config, args.seed, augmentation(args)) if of_files else named(kind, root, config)
    if args.limit is not None:
        data.train.labelled = limited(data.train.labelled, args.limit)
    if args.erasing:
        erase = RandomErasing(args.erasing, mode="pixel", device="cpu")
        data.train.transform = Compose([data.train.transform, erase])
    return data


def locate(data: str | None) -> tuple[str, Path]:
    """Return what ``--data`` means, DIGITS, IDX or FILES, and the folder where it is.

    Raises:
        CommandError: It is the name of a data set that is not there.
    """
    name = DIGITS if data is None else data
    if data is None or (name in (DIGITS, FASHION) and not os.path.isdir(name)):
        return (DIGITS, Path()) if name == DIGITS else (IDX, find_fashion())
    root = Path(name)
    if not has_idx(root) and has_idx(root / FASHION_RAW):
        root = root / FASHION_RAW
    return (IDX if has_idx(root) else FILES), root


def named(kind: str, root: Path, config: dict[str, Any]) -> Data:
    """Return the images of the DIGITS, or of the IDX files in ``root``."""
    return digits(config) if kind == DIGITS else idx(root, config)


def limited(images: Sequence[tuple[Any, int]], count: int) -> list[tuple[Any, int]]:
    """Return ``count`` images of each class, or all that it has: a draw that never changes, in the order of all."""
    members: dict[int, list[int]] = {}
    for index in random.Random(0).sample(range(len(images)), len(images)):
        members.setdefault(images[index][1], []).append(index)
    return [images[index] for index in sorted(index for drawn in members.values() for index in drawn[:count])]


def augmentation(args: argparse.Namespace) -> dict[str, Any]:
    """Return what timm's ``create_transform`` takes of ``args``."""
    return {
        "scale": (args.crop_scale, 1.0),
        "color_jitter": args.color_jitter,
        "auto_augment": args.auto_augment,
    }


def idx(root: Path, config: dict[str, Any]) -> Data:
    """Return the images of a folder in the files of MNIST: Fashion-MNIST, if it is called so, or ten digits.

    Raises:
        CommandError: They are missing or damaged.
    """
    train, test = read_idx(root)
    fashion = "fashion" in str(root.absolute()).lower()
    classes = FASHION_CLASSES if fashion else [str(digit) for digit in range(10)]
    if max(label for _, label in (*train, *test)) >= len(classes):
        raise CommandError(f"{root} has labels above {len(classes) - 1}, of which there are no names")
    to_input = create_transform(**config)
    shift = RandomAffine(0, translate=(0.1, 0.1), interpolation=InterpolationMode.BILINEAR)
    flips = [RandomHorizontalFlip()] if fashion else []
    return Data(
        train=Images(train, Compose([picture, *flips, shift, to_input])),
        test=Images(test, Compose([picture, to_input])),
        classes=classes,
        input_size=config["input_size"],
    )


def picture(pixels: Any) -> Image.Image:
    """Return an (height, width) array of bytes as a picture."""
    return Image.fromarray(pixels).convert("RGB")


def digits(config: dict[str, Any]) -> Data:
    """Return scikit-learn's 8x8 handwritten digits, enlarged to 32x32, with a split that never changes."""
    source = load_digits()
    images = [
        Image.fromarray((pixels * (255 / 16)).astype("uint8")).resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
        for pixels in source.images
    ]
    labels = source.target.tolist()
    train, test = split(labels, seed=0)
    to_input = create_transform(**config)
    # No flips: a mirrored digit is another sign.
    shake = RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation=InterpolationMode.BILINEAR)
    return Data(
        train=Images([(images[i], labels[i]) for i in train], Compose([shake, to_input])),
        test=Images([(images[i], labels[i]) for i in test], to_input),
        classes=[str(name) for name in source.target_names],
        input_size=config["input_size"],
        samples={f"{labels[i]}.png": images[i] for i in test},
    )


def folder(root: Path, config: dict[str, Any], seed: int, augmentation: dict[str, Any] = MILD) -> Data:
    """Return the images of ``root/{train,val}/<class>/*``, or of ``root/<class>/*`` split at random by ``seed``.

    ``augmentation`` is what ``create_transform`` takes beside ``config`` for those to train on.

    Prints which folders are used, where there is a choice, and what is left out.

    Raises:
        CommandError: The folder is missing, is laid out otherwise, or has too few classes or images.
    """
    left_out: Counter[str] = Counter()
    parts = find_split(root)
    train, test, classes = read_parts(*parts, left_out) if parts else draw_parts(root, seed, left_out)
    if parts:
        unused = [repr(other.name) for other in subfolders(root) if other not in parts]
        rest = f"; not used: {', '.join(unused)}" if unused else ""
        print(f"folders {parts[0].name!r} to train on, {parts[1].name!r} to test on{rest}")
    if left_out:
        print(describe_left_out(left_out))
    to_input = create_transform(**config)
    try:
        augment = create_transform(**config, **augmentation, is_training=True)
    except (AssertionError, KeyError, ValueError, IndexError) as error:  # whatever timm makes of a policy
        raise CommandError(f"--auto-augment {augmentation['auto_augment']}: timm has no such policy") from error
    return Data(
        train=Images(train, Compose([load_image, augment])),
        test=Images(test, Compose([load_image, to_input])),
        classes=classes,
        input_size=config["input_size"],
    )


def read_parts(train_root: Path, test_root: Path, left_out: Counter[str]) -> tuple[Files, Files, list[str]]:
    """Return the files to train on, those to test on, and the names of the classes, which both folders must share."""
    train, test = find_classes(train_root, left_out), find_classes(test_root, left_out)
    refuse_telling_format(train_root, train)
    names = [found.name for found in train]
    pairs = {found.name: same_class(found.name, names) for found in test}
    times = Counter(pairs.values())
    odd = [name for name in names if times[name] != 1] + [name for name, same in pairs.items() if same is None]
    if odd:
        raise CommandError(f"{train_root} and {test_root} differ in their classes: {', '.join(sorted(odd))}")
    indices = {name: names.index(same) for name, same in pairs.items() if same is not None}
    return labelled(train, {name: index for index, name in enumerate(names)}), labelled(test, indices), names


def draw_parts(root: Path, seed: int, left_out: Counter[str]) -> tuple[Files, Files, list[str]]:
    """Return the files to train on, those to test on, drawn by ``seed``, and the names of the classes."""
    classes = find_classes(root, left_out)
    refuse_telling_format(root, classes)
    for found in classes:
        if len(found.images) < 2:
            raise CommandError(f"{root / found.name} has one image; a class needs two, one of them to test on")
    names = [found.name for found in classes]
    files = labelled(classes, {name: index for index, name in enumerate(names)})
    train, test = split([label for _, label in files], seed)
    return [files[i] for i in train], [files[i] for i in test], names


def labelled(classes: Sequence[Class], indices: dict[str, int]) -> Files:
    """Return each image of the classes with the index of its class."""
    return [(image, indices[found.name]) for found in classes for image in found.images]


def split(labels: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """Return the indices to train on and to test on: a fifth of every class is for the test, one image at least."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    train, test = [], []
    draw = random.Random(seed)
    for label in sorted(members):
        draw.shuffle(members[label])
        count = max(1, round(len(members[label]) / 5))
        test += members[label][:count]
        train += members[label][count:]
    return train, test

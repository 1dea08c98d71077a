"""The images to train and to test on: scikit-learn's digits, or a folder of the user."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import Compose, InterpolationMode, RandomAffine

from .errors import CommandError
from .folders import Class, describe_left_out, find_classes, refuse_telling_format, same_class, subfolders
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
    samples: dict[str, Image.Image] = field(default_factory=dict)


def digits(config: dict[str, Any]) -> Data:
    """Return scikit-learn's 8x8 handwritten digits, enlarged to 32x32, with a split that never changes.

    Args:
        config: What timm's ``create_transform`` needs of the model: ``input_size``, ``mean``, ``std``, …
    """
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
        samples={f"{labels[i]}.png": images[i] for i in test},
    )


def folder(root: Path, config: dict[str, Any], seed: int) -> Data:
    """Return the images of ``root/{train,val}/<class>/*``, or of ``root/<class>/*`` split at random by ``seed``.

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
    # timm's own crops, down to a twelfth of the image, are meant for hundreds of epochs.
    augment = create_transform(**config, is_training=True, scale=(0.5, 1.0))
    return Data(
        train=Images(train, Compose([load_image, augment])),
        test=Images(test, Compose([load_image, to_input])),
        classes=classes,
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

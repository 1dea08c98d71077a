"""The images to train and to test on: scikit-learn's digits, or a folder of the user."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, InterpolationMode, RandomAffine

from .errors import CommandError
from .images import load_image

Transform = Callable[[Image.Image], Tensor]


class Labelled(Dataset[Any]):
    """Images in memory, transformed when they are asked for."""

    def __init__(self, images: Sequence[Image.Image], labels: Sequence[int], transform: Transform) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


Images: TypeAlias = Labelled | ImageFolder | Subset[Any]


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
        train=Labelled([images[i] for i in train], [labels[i] for i in train], Compose([shake, to_input])),
        test=Labelled([images[i] for i in test], [labels[i] for i in test], to_input),
        classes=[str(name) for name in source.target_names],
        samples={f"{labels[i]}.png": images[i] for i in test},
    )


def folder(root: Path, config: dict[str, Any], seed: int) -> Data:
    """Return the images of ``root/{train,val|test}/<class>/*``, or of ``root/<class>/*`` split at random by ``seed``.

    Raises:
        CommandError: The folder is missing, is laid out otherwise, or has too few classes or images.
    """
    to_input = create_transform(**config)
    # timm's own crops, down to a twelfth of the image, are meant for hundreds of epochs.
    augment = create_transform(**config, is_training=True, scale=(0.5, 1.0))
    tests = [root / name for name in ("val", "test") if (root / name).is_dir()]
    if (root / "train").is_dir() and tests:
        train = image_folder(root / "train", augment)
        test = image_folder(tests[0], to_input)
        if train.classes != test.classes:
            odd = ", ".join(sorted({*train.classes} ^ {*test.classes}))
            raise CommandError(f"{root / 'train'} and {tests[0]} differ in their classes: {odd}")
        return Data(train, test, train.classes)
    train, test = image_folder(root, augment), image_folder(root, to_input)
    name, count = min(Counter(train.targets).items(), key=lambda item: item[1])
    if count < 2:
        raise CommandError(f"{root / train.classes[name]} has one image; a class needs two, one of them to test on")
    chosen = split(train.targets, seed)
    return Data(Subset(train, chosen[0]), Subset(test, chosen[1]), train.classes)


def image_folder(root: Path, transform: Transform) -> ImageFolder:
    """Return torchvision's dataset of ``root/<class>/*``, which must have two classes or more."""
    try:
        dataset = ImageFolder(str(root), transform, loader=load_image)
    except FileNotFoundError as error:
        if not root.exists():
            raise CommandError(f"no such folder: {root}") from None
        raise CommandError(f"{root}: {error}") from None
    except NotADirectoryError:
        raise CommandError(f"{root} is a file, not a folder of images") from None
    if len(dataset.classes) < 2:
        raise CommandError(f"{root} has one class, {dataset.classes[0]!r}; at least two are needed")
    return dataset


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

"""``elsa-ext classify``: the most probable classes of image files."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoint import load_model
from ..data.image_files import Named, named_images
from ..data.images import load_image
from ..device import find_device
from ..errors import CommandError
from ..predict import answer
from ..text import printable

Ranked = list[tuple[str, float]]
"""Names of classes with their probabilities, the most probable first."""


def run(args: argparse.Namespace) -> int:
    """Print the top classes of every image that can be read; return 2 if one cannot."""
    checkpoint, model = load_model(args.checkpoint)
    device = find_device(args.device)
    named = list(named_images(args.images))
    documents, code = [], 0
    if args.csv:
        write(csv_row("image", "rank", "class", "probability"))
    classifier = Classifier(model.to(device), device, checkpoint.classes, checkpoint.input)
    with tqdm(total=len(named), leave=False, delay=1, unit=" images", disable=None) as bar:
        for path, found in classifier.answers(named, args.batch_size, args.top):
            bar.update()
            if isinstance(found, CommandError):
                tqdm.write(f"elsa-ext classify: {printable(str(found))}", file=sys.stderr)
                code = 2
            if args.json:
                documents.append(document(path, found))
            elif not isinstance(found, CommandError):
                write(csv_rows(path, found) if args.csv else text(path, found))
    if args.json:
        print(json.dumps(documents, indent=1))
    return code


class Classifier:
    """A model with the names of its classes and what it takes."""

    def __init__(self, model: nn.Module, device: torch.device, classes: Sequence[str], config: dict[str, Any]) -> None:
        self.model, self.device, self.classes = model, device, classes
        self.to_input = create_transform(**config)

    def answers(self, named: Sequence[Named], batch_size: int, top: int) -> Iterator[tuple[str, Ranked | CommandError]]:
        """Yield each path, in their order, with its ``top`` classes, or why it has none; so many at a time."""
        for start in range(0, len(named), batch_size):
            batch = named[start : start + batch_size]
            loaded = [self.load(path) if odd is None else odd for path, odd in batch]
            images = [image for image in loaded if isinstance(image, Tensor)]
            ranked = iter(self.rank(torch.stack(images), top) if images else [])
            for (path, _), image in zip(batch, loaded, strict=True):
                yield path, image if isinstance(image, CommandError) else next(ranked)

    def load(self, path: str) -> Tensor | CommandError:
        """Return an image as the model takes it, or why it cannot be read."""
        try:
            image: Tensor = self.to_input(load_image(path))
        except CommandError as error:
            return error
        return image

    def rank(self, images: Tensor, top: int) -> list[Ranked]:
        """Return the most probable classes of each image."""
        with torch.inference_mode():
            probabilities = answer(self.model, images.to(self.device)).softmax(1)
        best = probabilities.topk(min(top, len(self.classes)))
        return [
            [(self.classes[index], probability) for probability, index in zip(*pair, strict=True)]
            for pair in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def text(path: str, ranked: Ranked) -> str:
    """Return the lines of an image."""
    lines = [printable(path), *(f"  {probability:8.3%}  {printable(name)}" for name, probability in ranked)]
    return "".join(f"{line}\n" for line in lines)


def csv_rows(path: str, ranked: Ranked) -> str:
    """Return a row for each class of an image."""
    return "".join(
        csv_row(path, rank, name, f"{probability:.7g}") for rank, (name, probability) in enumerate(ranked, start=1)
    )


def csv_row(*fields: object) -> str:
    """Return a row as RFC 4180 has it."""
    row = io.StringIO()
    csv.writer(row).writerow(fields)
    return row.getvalue()


def document(path: str, found: Ranked | CommandError) -> dict[str, Any]:
    """Return what JSON says of an image."""
    if isinstance(found, CommandError):
        return {"image": path, "error": str(found)}
    return {"image": path, "classes": [{"class": name, "probability": probability} for name, probability in found]}


def write(rows: str) -> None:
    """Print without breaking the progress bar."""
    tqdm.write(rows, end="")

"""``elsa-ext evaluate``: how often a checkpoint is right, on which classes, and how fast."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..checkpoint import Checkpoint, load_model
from ..data.data_set import Images
from ..device import find_device
from ..errors import CommandError
from ..files import check_apart, check_writable
from ..predict import answer
from ..text import printable, three_digits
from ..train.loop import AMP, explained, shared_flag
from ..train.steps import IGNORED, Batches, Drawn, Loader, loader
from .confusion import draw_confusion
from .images import find_images, kept_options

TOP = 5
LARGEST_BATCH = 256  # unless asked for more: that of a training may be meant for many GPUs


@dataclass
class Evaluation:
    """Counts over the images that could be read."""

    confusion: Tensor
    """Images by their class and the class that the model gives them, (classes, classes)."""
    loss: float = 0.0
    """Sum over the images."""
    in_top: int = 0
    """Images whose class is among the five most probable."""
    seconds: float = 0.0
    """With the loading of the images."""
    batches: list[tuple[int, float]] = field(default_factory=list)
    """Images and seconds of every batch, by the model alone."""
    skipped: set[str] = field(default_factory=set)
    """Why images were skipped, in messages that name them."""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch."""
        counted = labels != IGNORED
        self.loss += F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        logits, labels = logits[counted], labels[counted]
        count = len(self.confusion)
        pairs = (labels * count + logits.argmax(1)).cpu()
        self.confusion += torch.bincount(pairs, minlength=count**2).reshape(count, count)
        best = logits.topk(min(TOP, count)).indices
        self.in_top += int((best == labels[:, None]).any(1).sum())

    def facts(self, classes: list[str]) -> dict[str, Any]:
        """Return what there is to tell, of ``classes`` too; a share of nothing is None."""
        images = int(self.confusion.sum())
        right, true, given = self.confusion.diagonal(), self.confusion.sum(1), self.confusion.sum(0)
        timed = self.batches[1:] or self.batches  # the first one also pays for what is made once
        return {
            "images": images,
            "skipped": len(self.skipped),
            "loss": self.loss / images,
            "top1": int(right.sum()) / images,
            "top5": self.in_top / images,
            "images_per_second": images / self.seconds,
            "model_images_per_second": sum(count for count, _ in timed) / sum(seconds for _, seconds in timed),
            "classes": [
                {"class": name, "images": total, "precision": share(hits, answers), "recall": share(hits, total)}
                for name, hits, total, answers in zip(
                    classes, right.tolist(), true.tolist(), given.tolist(), strict=True
                )
            ],
            "confusion": self.confusion.tolist(),
        }


def share(part: int, whole: int) -> float | None:
    """Return a quotient, or None where there is nothing to take a share of."""
    return part / whole if whole else None


def run(args: argparse.Namespace) -> int:
    """Evaluate a checkpoint and print what comes of it."""
    checkpoint, model = load_model(args.checkpoint)
    device = find_device(args.device)
    if args.confusion is not None:
        check_apart(Path(args.confusion), args.checkpoint)
        check_writable(Path(args.confusion))
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        images, source = find_images(checkpoint, args.checkpoint, args.data)
    take_defaults(args, kept_options(checkpoint))
    found = evaluate(args, model.to(device), device, images, checkpoint)
    for reason in sorted(found.skipped):
        print(f"elsa-ext evaluate: skipped: {printable(reason)}", file=sys.stderr)
    facts = {
        "checkpoint": args.checkpoint,
        "model": checkpoint.model,
        "epoch": checkpoint.epoch,
        "data": source,
        "device": str(device),
        "batch_size": args.batch_size,
        "amp": args.amp,
        **found.facts(checkpoint.classes),
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print_facts(facts)
    if args.confusion is not None:
        title = f"{checkpoint.model}, top-1 {facts['top1']:.2%} of {facts['images']} images: {source}"
        draw_confusion(Path(args.confusion), title, checkpoint.classes, found.confusion)
        if not args.json:
            print(f"written to {printable(args.confusion)}")
    return 0


def take_defaults(args: argparse.Namespace, kept: dict[str, Any]) -> None:
    """Give ``args`` what the training had where the user has said nothing."""
    args.batch_size = args.batch_size or min(kept.get("batch_size", 32), LARGEST_BATCH)
    args.amp = args.amp or kept.get("amp") or "off"
    args.bad_images = args.bad_images or kept.get("bad_images", "stop")


def evaluate(
    args: argparse.Namespace, model: nn.Module, device: torch.device, images: Images, checkpoint: Checkpoint
) -> Evaluation:
    """Return what a model makes of images.

    Raises:
        CommandError: An image cannot be read and none may be skipped, or none can be read.
    """
    count = len(checkpoint.classes)
    found = Evaluation(torch.zeros(count, count, dtype=torch.int64))
    autocast = torch.autocast(device.type, AMP[args.amp]) if args.amp != "off" else contextlib.nullcontext()
    start = time.perf_counter()
    with loading(args, images, checkpoint.input["input_size"]) as batches, torch.no_grad(), autocast:
        for batch, labels, reasons in tqdm(batches, leave=False, delay=1, unit=" batches", disable=None):
            found.skipped.update(filter(None, reasons))
            batch, labels = batch.to(device), labels.to(device)
            before = now(device)
            logits = answer(model, batch)
            found.batches.append((len(labels), now(device) - before))
            found.add(logits, labels)
    found.seconds = time.perf_counter() - start
    if not found.confusion.sum():
        raise CommandError(f"none of the images can be read: {min(found.skipped)}")
    return found


@contextlib.contextmanager
def loading(args: argparse.Namespace, images: Images, input_size: tuple[int, int, int]) -> Iterator[Loader]:
    """Give what loads the images in their order."""
    ending = shared_flag(args.workers)
    drawn = Drawn(images, torch.zeros(input_size), skip=args.bad_images == "skip", replace=False)
    try:
        with explained():
            yield loader(drawn, Batches(len(images), args.batch_size, seed=None), args.workers, ending)
    finally:
        ending.value = 1


def now(device: torch.device) -> float:
    """Return the time once the device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def print_facts(facts: dict[str, Any]) -> None:
    """Print the facts as text: what there is once, then a table of the classes."""
    skipped = f", {facts['skipped']} skipped" if facts["skipped"] else ""
    lines = {
        "model": f"{facts['model']} after epoch {facts['epoch']}, {facts['checkpoint']}",
        "data": f"{facts['data']}: {facts['images']} images{skipped}, {len(facts['classes'])} classes",
        "device": f"{facts['device']}, batches of {facts['batch_size']}"
        + (f", {facts['amp']}" if facts["amp"] != "off" else ""),
        "loss": f"{facts['loss']:.4f}",
        "top-1": f"{facts['top1']:.2%}",
        "top-5": f"{facts['top5']:.2%}",
        "speed": f"{three_digits(facts['images_per_second'])} images/s, "
        f"{three_digits(facts['model_images_per_second'])} by the model alone",
    }
    for name, value in lines.items():
        print(f"{name:6} {printable(value)}")
    width = max(len("class"), *(len(printable(row["class"])) for row in facts["classes"]))
    print(f"\n{'class':{width}}  images  precision   recall")
    for row in facts["classes"]:
        shares = (percent(row["precision"]), percent(row["recall"]))
        print(f"{printable(row['class']):{width}}  {row['images']:6}  {shares[0]:>9}  {shares[1]:>7}")


def percent(value: float | None) -> str:
    """Return a share as text."""
    return "-" if value is None else f"{value:.2%}"

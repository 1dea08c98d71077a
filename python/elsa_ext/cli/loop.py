"""The training loop."""

import argparse
import math
import time
from collections.abc import Callable, Generator, Iterable
from typing import NoReturn

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from .data import Data, Images
from .errors import CommandError, describe
from .report import Metrics
from .signals import end_quietly

Batches = DataLoader[tuple[Tensor, Tensor]]


def fit(args: argparse.Namespace, data: Data, model: nn.Module, device: torch.device) -> Generator[Metrics, None, None]:
    """Train ``model`` in place, and yield after every epoch.

    Raises:
        CommandError: The loss is not finite, the model cannot take a batch, or a process that loads images has ended.
    """
    train_batches = batches(data.train, args, shuffle=True)
    test_batches = batches(data.test, args, shuffle=False)
    optimizer = create_optimizer_v2(model, "adamw", lr=args.lr, weight_decay=args.weight_decay)
    steps = args.epochs * len(train_batches)
    warmup = max(1, steps // 10)

    def factor(step: int) -> float:
        return min(1, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2

    schedule = LambdaLR(optimizer, factor)

    def learn(loss: Tensor) -> None:
        if not loss.isfinite():
            raise CommandError("the loss is no longer finite; try a lower --lr")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    total = args.epochs * (len(train_batches) + len(test_batches))
    with tqdm(total=total, leave=False, mininterval=0.5, disable=None) as bar:
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            bar.set_description(f"epoch {epoch}/{args.epochs}")
            try:
                train = one_pass(model, train_batches, device, bar, learn)
                test = one_pass(model, test_batches, device, bar)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                # Such as a full /dev/shm, through which they hand over the images.
                raise CommandError(
                    f"{describe(error)} (--workers 0 loads the images without other processes)"
                ) from error
            yield Metrics(epoch, *train, *test, seconds=round(time.perf_counter() - start, 2))


def batches(dataset: Images, args: argparse.Namespace, shuffle: bool) -> Batches:
    """Return the loader of ``dataset``; one that shuffles leaves out a last batch of one image."""
    # Batch norm over one pixel cannot take it, and its step would count as much as that of a whole batch.
    lone = len(dataset) > args.batch_size and len(dataset) % args.batch_size == 1
    return DataLoader(
        dataset,
        args.batch_size,
        shuffle=shuffle,
        drop_last=shuffle and lone,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        worker_init_fn=end_quietly,
    )


def one_pass(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    bar: "tqdm[NoReturn]",
    learn: Callable[[Tensor], None] | None = None,
) -> tuple[float, float]:
    """Return mean loss and share of right answers over all batches, after ``learn`` has had the loss of each."""
    model.train(learn is not None)
    loss_sum, right, count = 0.0, 0, 0
    with torch.set_grad_enabled(learn is not None):
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            try:
                logits = model(images)
            except ValueError as error:  # such as of batch norm, which has no variance over one image of one pixel
                size = f"{len(images)} x {images.shape[2]} x {images.shape[3]}"
                raise CommandError(f"the model cannot learn from a batch of {size} pixels: {error}") from error
            loss = F.cross_entropy(logits, labels)
            if learn:
                learn(loss)
            loss_sum += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
            bar.update()
    return loss_sum / count, right / count

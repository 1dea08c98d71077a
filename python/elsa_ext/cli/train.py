"""``elsa-ext train``: train a classifier and leave a run folder."""

import argparse
import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.utils import random_seed
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from .checkpoint import Checkpoint
from .data import Data, Images, digits, folder
from .device import find_device
from .errors import CommandError
from .model import build_model, input_config, model_kwargs
from .report import HEADER, Metrics, draw_curves, table_row

Batches = DataLoader[tuple[Tensor, Tensor]]


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say. Ctrl-C and a failure leave what the epochs before it gave."""
    start = time.perf_counter()
    source = "digits" if args.data is None else Path(args.data).resolve().name
    output = Path(args.output or f"runs/{source}-{time.strftime('%Y%m%d-%H%M%S')}")
    if output.exists() and not output.is_dir():
        raise CommandError(f"--output {output} is a file, not a folder")
    if (output / "checkpoint.pt").exists():
        raise CommandError(f"{output} already holds a checkpoint; choose another --output, or delete it")
    device = find_device(args.device)
    random_seed(args.seed)
    config = input_config(args.model, args.image_size)
    data = digits(config) if args.data is None else folder(Path(args.data), config, args.seed)
    kwargs = model_kwargs(args.model, len(data.classes), args.image_size)
    model = build_model(args.model, kwargs, config["input_size"]).to(device)
    output.mkdir(parents=True, exist_ok=True)
    data.write_samples(output / "samples")

    print(f"data    {source}: {len(data.train)} images to train on, {len(data.test)} to test on")
    print(f"model   {describe(model, args.model, config)}")
    print(f"device  {device}" + (f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""))
    print(HEADER, flush=True)
    rows: list[Metrics] = []
    try:
        with (output / "metrics.csv").open("w", newline="", buffering=1) as file:
            table = csv.DictWriter(file, [field.name for field in fields(Metrics)], lineterminator="\n")
            table.writeheader()
            for row in fit(args, data, model, device):
                weights = model.state_dict()
                checkpoint = Checkpoint(args.model, kwargs, data.classes, config, row.epoch, vars(row), weights)
                checkpoint.save(output / "checkpoint.pt")
                table.writerow(vars(row))
                rows.append(row)
                tqdm.write(table_row(row))
    finally:
        if rows:
            draw_curves(output / "curves.png", f"{args.model} on {source}", rows)
            seconds = time.perf_counter() - start
            print(f"test accuracy {rows[-1].test_accuracy:.2%} after epoch {len(rows)}, {seconds:.0f} s in all")
            print(f"written to {output}: {', '.join(sorted(file.name for file in output.iterdir()))}")
    return 0


def describe(model: nn.Module, name: str, config: dict[str, Any]) -> str:
    """Return name, size and input of a model."""
    parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
    height, width = config["input_size"][1:]
    return f"{name}: {parameters:.2f} M parameters, images of {height} x {width} pixels"


def fit(args: argparse.Namespace, data: Data, model: nn.Module, device: torch.device) -> Iterator[Metrics]:
    """Train ``model`` in place, and yield after every epoch."""
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

    with tqdm(total=args.epochs * (len(train_batches) + len(test_batches)), leave=False, mininterval=0.5) as bar:
        for epoch in range(1, args.epochs + 1):
            start = time.perf_counter()
            bar.set_description(f"epoch {epoch}/{args.epochs}")
            train = one_pass(model, train_batches, device, bar, learn)
            test = one_pass(model, test_batches, device, bar)
            yield Metrics(epoch, *train, *test, seconds=round(time.perf_counter() - start, 2))


def batches(dataset: Images, args: argparse.Namespace, shuffle: bool) -> Batches:
    """Return the loader of ``dataset``."""
    workers: int = args.workers
    return DataLoader(dataset, args.batch_size, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0)


def one_pass(
    model: nn.Module,
    batches: Batches,
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
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if learn:
                learn(loss)
            loss_sum += loss.item() * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            count += len(labels)
            bar.update()
    return loss_sum / count, right / count

"""``elsa-ext train``: train a classifier and leave a run folder."""

import argparse
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from timm.utils import random_seed
from torch import nn
from tqdm import tqdm

from .checkpoint import Checkpoint
from .data import digits, folder
from .device import find_device
from .loop import fit
from .model import build_model, input_config, model_kwargs
from .report import HEADER, table_row
from .run_folder import RunFolder, check_output, new_run
from .text import printable


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say. What stops it leaves what the epochs before gave, and nothing if there was none."""
    start = time.perf_counter()
    source = "digits" if args.data is None else os.path.basename(os.path.realpath(args.data)) or "root"
    if args.output is not None:
        check_output(Path(args.output))  # also before the images are looked through, which may take its time
    device = find_device(args.device)
    random_seed(args.seed)
    config = input_config(args.model, args.image_size)
    data = digits(config) if args.data is None else folder(Path(args.data), config, args.seed)
    kwargs = model_kwargs(args.model, len(data.classes), args.image_size)
    model = build_model(args.model, kwargs, config["input_size"]).to(device)
    with new_run(args.output, source) as run_folder:
        run_folder.add_samples(data.samples)
        title = f"{args.model} on {source}"
        print(f"data    {printable(source)}: {len(data.train)} images to train on, {len(data.test)} to test on")
        print(f"model   {describe(model, args.model, config)}")
        print(f"device  {device}" + (f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""))
        print(HEADER, flush=True)
        try:
            with contextlib.closing(fit(args, data, model, device)) as epochs:
                for row in epochs:
                    weights = model.state_dict()
                    values = (args.model, kwargs, data.classes, config, row.epoch, vars(row), weights)
                    run_folder.add_epoch(row, Checkpoint(*values))
                    tqdm.write(table_row(row))
        except BaseException:
            with contextlib.suppress(Exception):  # what has ended the training is what is reported
                conclude(run_folder, title, start)
            raise
        conclude(run_folder, title, start)
    return 0


def conclude(run_folder: RunFolder, title: str, start: float) -> None:
    """Draw and tell what the epochs have come to."""
    rows = run_folder.rows
    if rows:
        run_folder.add_curves(title)
        seconds = time.perf_counter() - start
        print(f"test accuracy {rows[-1].test_accuracy:.2%} after epoch {len(rows)}, {seconds:.0f} s in all")
        print(f"written to {printable(str(run_folder.path))}: {', '.join(run_folder.contents())}")


def describe(model: nn.Module, name: str, config: dict[str, Any]) -> str:
    """Return name, size and input of a model."""
    parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
    height, width = config["input_size"][1:]
    return f"{name}: {parameters:.2f} M parameters, images of {height} x {width} pixels"

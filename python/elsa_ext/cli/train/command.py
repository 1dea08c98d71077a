"""``elsa-ext train``: train a classifier and leave a run folder."""

import argparse
import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from timm.utils import random_seed
from torch import nn

from ..checkpoint import Checkpoint
from ..data.data_set import load_data, source_name
from ..model import build_model, input_config, model_kwargs
from ..signals import stop_noted
from ..text import printable
from .loop import Training, check_optimizer
from .pretrained import load_pretrained
from .processes import Processes, join_processes
from .record import Record
from .report import HEADER
from .resume import check_data, find_run
from .run_folder import RunFolder, check_output, new_run


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say. What stops it leaves what the steps before gave, and nothing if there was none."""
    start = time.perf_counter()
    found = find_run(args)
    with join_processes(args) as processes:
        train(args, processes, found, start)
    return 0


def train(args: argparse.Namespace, processes: Processes, found: Checkpoint | None, start: float) -> None:
    """Train, in each of the processes, from the beginning or from what was found."""
    source = source_name(args.data)
    if args.output is not None and args.resume is None and processes.rank == 0:
        check_output(Path(args.output))  # also before the images are looked through, which may take its time
    check_optimizer(args.opt)
    device = processes.device(args.device)
    random_seed(args.seed)
    config = input_config(args.model, args.image_size)
    data = load_data(args, config)
    kwargs = model_arguments(args, len(data.classes))
    model = build_model(args.model, kwargs, config["input_size"])
    loaded = load_pretrained(model, args.pretrained) if args.pretrained and found is None else None
    random_seed(args.seed, processes.rank)
    training = Training(args, data, model.to(device), device, processes)
    if found is not None and found.training is not None:
        check_data(found, data)
        training.load(found.training, found.state_dict)
    with open_folder(args, source, processes) as folder, stop_noted() as training.stop:
        record = Record(training, folder, kwargs, config, found)
        if found is None:
            record.save()  # so that there is something to go on from, whatever happens
        if folder is not None:
            folder.add_samples(data.samples)
        print(f"data    {printable(source)}: {len(data.train)} images to train on, {len(data.test)} to test on")
        name = args.model if args.spec is None else f"{args.model}, {args.spec}"
        print(f"model   {describe(model, name, config)}")
        if loaded is not None:
            print(f"weights {printable(loaded)}")
        print(f"device  {describe_device(device, processes, args.parallel)}")
        if found is not None:
            print(f"resumed {describe_progress(training)}")
        print(HEADER, flush=True)
        try:
            with contextlib.closing(training.epochs()) as epochs:
                for row in epochs:
                    if folder is not None:
                        folder.begun = True
                    record.add(row)
        except KeyboardInterrupt:
            if folder is not None:
                folder.begun = True
            record.save()
            conclude(record, f"{args.model} on {source}", start)
            if folder is not None:
                print(f"elsa-ext train --resume {printable(str(folder.path))} goes on with it")
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # what has ended the training is what is reported
                conclude(record, f"{args.model} on {source}", start)
            raise
        conclude(record, f"{args.model} on {source}", start)


def model_arguments(args: argparse.Namespace, classes: int) -> dict[str, Any]:
    """Return the arguments of the model that ``args`` ask for."""
    return model_kwargs(args.model, classes, args.image_size, args.drop_path, args.spec, args.kernel_size)


def open_folder(
    args: argparse.Namespace, source: str, processes: Processes
) -> contextlib.AbstractContextManager[RunFolder | None]:
    """Return the run folder of the first process, new or an old one, and nothing for the others."""
    if processes.rank:
        return contextlib.nullcontext()
    return new_run(args.output, source, resume=args.resume is not None)


def conclude(record: Record, title: str, start: float) -> None:
    """Draw and tell what the epochs have come to."""
    if record.rows and record.folder is not None:
        record.folder.add_curves(title, record.rows)
        seconds = time.perf_counter() - start
        last = record.rows[-1]
        print(f"test accuracy {last.test_accuracy:.2%} after epoch {last.epoch}, {seconds:.0f} s in all")
        if record.named:
            print(f"skipped {len(record.named)} images that cannot be read")
        print(f"written to {printable(str(record.folder.path))}: {', '.join(record.folder.contents())}")


def describe(model: nn.Module, name: str, config: dict[str, Any]) -> str:
    """Return name, size and input of a model."""
    parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
    height, width = config["input_size"][1:]
    return f"{name}: {parameters:.2f} M parameters, images of {height} x {width} pixels"


def describe_device(device: torch.device, processes: Processes, parallel: str) -> str:
    """Return what the training runs on."""
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if device.type == "cpu" else ""
    return f"{device}{threads}" + (f", {processes.count} processes, {parallel}" if processes.launched else "")


def describe_progress(training: Training) -> str:
    """Return where a training goes on."""
    done = training.progress
    if done.epoch > training.args.epochs:
        return f"after the last of {training.args.epochs} epochs: nothing is left to do"
    return f"in epoch {done.epoch} of {training.args.epochs}, after {done.step} of {training.steps} steps"

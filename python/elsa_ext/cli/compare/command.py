"""``elsa-ext compare``: one architecture trained with several local operators, in runs of ``elsa-ext train``."""

import argparse
import contextlib
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..bench.counting import count_multiply_adds
from ..bench.model import training_step
from ..bench.results import machine
from ..checkpoint import Checkpoint, load
from ..data.data_set import Data, load_data, source_name
from ..device import find_device
from ..errors import CommandError
from ..files import write_whole
from ..model import build_model, input_config
from ..text import printable
from ..train.arguments import LAST_SEED, RUNNING
from ..train.command import model_arguments
from ..train.command import run as train
from ..train.loop import AMP, check_optimizer
from ..train.resume import check_data, kept_options
from ..train.run_folder import CHECKPOINT
from .arguments import OWN, SETS
from .report import Result, draw, table, write_csv

SWEEPS, CALLS = 5, 3
"""Each operator is timed so many times, the others in between, by so many calls."""


def run(args: argparse.Namespace) -> int:
    """Train what is not trained yet, and show the results of all."""
    specs = list(dict.fromkeys([*args.specs, *(SETS[args.set] if args.set else ())]))
    if not specs:
        raise CommandError('name what to compare, such as elsa "qk+rb softmax window", or a --set of specs')
    if args.seed + args.seeds - 1 > LAST_SEED:
        raise CommandError(f"--seeds {args.seeds} from --seed {args.seed} on go beyond {LAST_SEED}, the last there is")
    if dist.is_torchelastic_launched():
        raise CommandError("torchrun starts the processes of one run; runs that are compared have one process each")
    out = sys.stderr if args.json else sys.stdout
    root, seeds = Path(args.output), range(args.seed, args.seed + args.seeds)
    check_optimizer(args.opt)
    device = find_device(args.device)
    config = input_config(args.model, args.image_size)
    with contextlib.redirect_stdout(out):
        data = load_data(args, config)
    # The seeds of all operators one after the other: whenever it is stopped, all have as many, but for one.
    runs = [one_run(args, spec, seed) for seed in seeds for spec in specs]
    models = {each.spec: model_of(each, data) for each in runs}
    costs = {spec: cost(make, data.input_size) for spec, make in models.items()}
    for each in runs:
        find(each, data)
    accuracies: dict[str, list[float]] = {spec: [] for spec in specs}
    try:
        for number, each in enumerate(runs, 1):
            accuracies[each.spec].append(accuracy(each, data))
            print(f"{number:{len(str(len(runs)))}} of {len(runs)}  {each.spec}, seed {each.seed}: ", end="", file=out)
            print(f"test accuracy {accuracies[each.spec][-1]:.2%}", file=out, flush=True)
        timed = speeds(models, data, args, device)
    except KeyboardInterrupt:
        print(f"the same command goes on with what is in {printable(str(root))}", file=out)
        raise
    results = [Result(spec, accuracies[spec], *costs[spec], *timed[spec]) for spec in specs]
    budget = f"{len(data.train):,} images, {args.epochs} epoch{'s' * (args.epochs > 1)}, {args.seeds} seed"
    title = f"{args.model} on {source_name(args.data)}: {budget}{'s' * (args.seeds > 1)}"
    write_whole(root / "results.csv", lambda file: file.write(write_csv(results).encode()))
    draw(root / "compare.png", title, results)
    if args.json:
        print(json.dumps(record(args, seeds, data, device, results), indent=1, ensure_ascii=False))
    else:
        print(f"\n{printable(title)}\n{table(results)}\nwritten to {printable(str(root))}: results.csv, compare.png")
    return 0


def one_run(args: argparse.Namespace, spec: str, seed: int) -> argparse.Namespace:
    """Return the arguments of ``elsa-ext train`` for one operator and seed, begun or gone on with."""
    names = {name: value for name, value in vars(args).items() if name not in OWN}
    names |= {"command": "train", "spec": spec, "seed": seed, "resume": True}
    names["output"] = str(Path(args.output, spec.replace(" ", "-"), f"seed{seed}"))
    return argparse.Namespace(**names)


def model_of(args: argparse.Namespace, data: Data) -> Callable[[], torch.nn.Module]:
    """Return what makes the model of a run."""
    kwargs = model_arguments(args, len(data.classes))
    return lambda: build_model(args.model, kwargs, data.input_size)


def cost(make: Callable[[], torch.nn.Module], size: tuple[int, int, int]) -> tuple[int, int]:
    """Return the parameters of a model, and its multiply-adds for one image."""
    model, image = make(), torch.zeros(1, *size)
    with torch.no_grad():
        multiply_adds = count_multiply_adds(lambda: model(image))
    return sum(weight.numel() for weight in model.parameters()), multiply_adds


def find(args: argparse.Namespace, data: Data) -> Checkpoint | None:
    """Return what there is of a run.

    Raises:
        CommandError: It is of other images or options, so that it cannot be compared with.
    """
    path = Path(args.output, CHECKPOINT)
    if not os.path.lexists(path):
        return None
    found = load(str(path))
    if found.training is None:
        raise CommandError(f"{path} holds weights alone, not a run; choose another --output")
    kept = found.training["options"]
    for name, value in kept_options(args).items():
        if kept.get(name) != value and name not in RUNNING - {"data"}:
            flag = f"--{name.replace('_', '-')}"
            raise CommandError(f"{flag} is {kept.get(name)} in {path.parent}, not {value}; choose another --output")
    check_data(found, data)
    return found


def accuracy(args: argparse.Namespace, data: Data) -> float:
    """Return the test accuracy of a run after its last epoch, which is trained if it is not there yet."""
    found = find(args, data)
    if found is None or found.epoch < args.epochs:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                train(args)
        except CommandError as error:
            raise type(error)(f"{args.spec}, seed {args.seed}: {error}") from error
        found = load(str(Path(args.output, CHECKPOINT)))
    return found.metrics["test_accuracy"]


def speeds(
    models: dict[str, Callable[[], torch.nn.Module]], data: Data, args: argparse.Namespace, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Return the images per second of training steps and of inference with each operator, medians of many calls."""
    batch = [data.test[index] for index in range(min(args.batch_size, len(data.test)))]
    images = torch.stack([image for image, _ in batch]).to(device)
    labels = torch.tensor([label for _, label in batch], device=device)
    seconds: dict[str, tuple[list[float], list[float]]] = {spec: ([], []) for spec in models}
    context = contextlib.nullcontext() if args.amp is None else torch.autocast(device.type, AMP[args.amp])
    for _ in range(SWEEPS):
        for spec, make in models.items():
            model = make().to(device)
            with context:
                with torch.no_grad():
                    seconds[spec][1].extend(times(functools.partial(model, images)))
                seconds[spec][0].extend(times(training_step(model.train(), images, labels)))
    medians = {spec: [statistics.median(part) for part in parts] for spec, parts in seconds.items()}
    return {spec: (len(batch) / training, len(batch) / inference) for spec, (training, inference) in medians.items()}


def times(call: Callable[[], Tensor]) -> list[float]:
    """Return the seconds of a few calls, after one that does not count."""
    seconds = []
    for _ in range(1 + CALLS):
        start = time.perf_counter()
        call().sum().item()  # which waits for a GPU
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def record(
    args: argparse.Namespace, seeds: range, data: Data, device: torch.device, results: list[Result]
) -> dict[str, Any]:
    """Return all that is known, as plain data."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(device),
        "options": {name: value for name, value in kept_options(args).items() if name not in (*OWN, "seed")},
        "images": [len(data.train), len(data.test)],
        "seeds": list(seeds),
        "results": [result.fields() for result in results],
    }

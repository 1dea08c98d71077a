"""``elsa-ext bench model``: whole models against those of timm."""

import argparse
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import build_model, check_name, input_config, model_kwargs
from .contenders import OURS, Comparison, Contender, Task, by_formula, random_map
from .counting import count_multiply_adds

INFERENCE = "inference"
TRAINING = "training step"
CLASSES = 1000
PEERS = {f"elsa_swin_{size}": f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base")}
PEERS |= {f"elsa_volo_d{size}": f"volo_d{size}_224" for size in range(1, 6)}


def comparisons(args: argparse.Namespace, device: torch.device) -> list[Comparison]:
    """Return one comparison per model."""
    return [compare(name, args, device) for name in dict.fromkeys(args.model)]


def compare(name: str, args: argparse.Namespace, device: torch.device) -> Comparison:
    """Return the comparison of one model."""
    height, width = input_config(name, args.image_size)["input_size"][1:]
    baselines = [PEERS.get(name, "timm"), "formula"] if args.baselines is None else args.baselines
    baselines = [] if "none" in baselines else list(dict.fromkeys(baselines))
    for baseline in baselines:
        if baseline not in ("timm", "formula"):
            check_name(baseline)
    return Comparison(
        label=name,
        title=f"{name}: {args.batch} images of {height} x {width}, {args.dtype}, {args.layout}",
        problem={
            "op": "model",
            "model": name,
            "batch": args.batch,
            "height": height,
            "width": width,
            "dtype": args.dtype,
            "layout": args.layout,
        },
        directions=(INFERENCE, TRAINING) if args.backprop else (INFERENCE,),
        contenders=functools.partial(contenders, name, baselines, args, device),
        images=args.batch,
    )


def contenders(name: str, baselines: list[str], args: argparse.Namespace, device: torch.device) -> Iterator[Contender]:
    """Yield the model and its baselines."""
    counts: dict[str, int] = {}
    yield Contender(OURS, name, lambda: tasks(name, args, device, counts))
    for baseline in baselines:
        if baseline == "formula":
            yield Contender("formula", f"{name}, formula", lambda: tasks(name, args, device, counts, by_formula))
        elif baseline == "timm":
            yield Contender("timm", "timm model", no_peer)
        else:
            yield Contender(baseline, baseline, functools.partial(tasks, baseline, args, device, {}))


def no_peer() -> dict[str, Task]:
    """Say how to name what to compare with."""
    raise LookupError("none of this size; --baseline NAME chooses one")


def as_it_is(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return ``call``."""
    return call


def tasks(
    name: str,
    args: argparse.Namespace,
    device: torch.device,
    counts: dict[str, int],
    wrap: Callable[[Callable[[], Tensor]], Callable[[], Tensor]] = as_it_is,
) -> dict[str, Task]:
    """Return the tasks of a model.

    Args:
        name: The model.
        args: Of the command.
        device: Where it runs.
        counts: Multiply-adds by direction, counted here if they are not there yet.
        wrap: Makes the calls to time.
    """
    config = input_config(name, args.image_size)
    dtype = getattr(torch, args.dtype)
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    kwargs = model_kwargs(name, CLASSES, args.image_size)

    def make() -> nn.Module:
        return build_model(name, kwargs, config["input_size"]).to(device, dtype).to(memory_format=layout)

    model = make()
    images = random_map((args.batch, *config["input_size"]), args.dtype, args.layout, device)
    labels = torch.randint(CLASSES, (args.batch,), device=device)

    def infer() -> Tensor:
        with torch.no_grad():
            return model(images)

    calls = {INFERENCE: infer}
    weights = sum(weight.nbytes for weight in model.parameters())
    moved = {INFERENCE: images.nbytes + weights, TRAINING: images.nbytes + 6 * weights}
    if args.backprop:
        calls[TRAINING] = training_step(make().train(), images, labels)
    if not counts:
        counts |= {where: count_multiply_adds(call) for where, call in calls.items()}
    return {where: Task(wrap(call), counts[where], moved[where]) for where, call in calls.items()}


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """Return a call of forward, loss, backward and AdamW, which leaves no gradients behind.

    Weights and both moments of AdamW are read and written once a step: with the gradients that is all that has to move.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step

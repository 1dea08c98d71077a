"""What takes part in a comparison: calls to time, each with the work that it does."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import elsa_ext

FORWARD = "forward"
BACKWARD = "forward + backward"
OURS = "elsa_ext"


@dataclass(frozen=True)
class Task:
    """One call to time, and the work that it takes at least."""

    call: Callable[[], object]
    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        key: What it is; of several with one key the fastest is shown.
        name: What the tables call it.
        build: Makes the tasks by direction. What it raises is why the contender is absent.
    """

    key: str
    name: str
    build: Callable[[], dict[str, Task]]


@dataclass(frozen=True)
class Comparison:
    """Contenders for one problem.

    Attributes:
        label: Names the problem in a few words.
        title: Describes it in a line.
        problem: Identifies it in result files.
        directions: What is timed.
        contenders: Makes the contenders, ours first.
        images: Images per call, where images per second is a rate that means something.
    """

    label: str
    title: str
    problem: dict[str, Any]
    directions: tuple[str, ...]
    contenders: Callable[[], Iterable[Contender]]
    images: int | None = None


def directions(backprop: bool) -> tuple[str, ...]:
    """Return what is timed of an op or a layer."""
    return (FORWARD, BACKWARD) if backprop else (FORWARD,)


def both_ways(
    function: Callable[..., Tensor], leaves: Sequence[Tensor], backprop: bool
) -> dict[str, Callable[[], Any]]:
    """Return calls of ``function`` without gradients and, with ``backprop``, with those of all ``leaves``.

    Args:
        function: Takes the leaves.
        leaves: Its inputs, and its parameters even where it has them at hand.
        backprop: Return both calls, not the first alone.
    """
    inputs = [leaf.detach() for leaf in leaves]  # not for our sake: what has no backward refuses what asks for one

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    if not backprop:
        return {FORWARD: forward}
    grad = torch.randn_like(forward())
    return {FORWARD: forward, BACKWARD: lambda: torch.autograd.grad(function(*leaves), leaves, grad)}


def rated(
    function: Callable[..., Tensor],
    leaves: Sequence[Tensor],
    backprop: bool,
    multiply_adds: dict[str, int],
    output_saved: bool = False,
) -> dict[str, Task]:
    """Return the tasks of a function of ``leaves``; for the arguments see `both_ways` and `compulsory_bytes`."""
    calls = both_ways(function, leaves, backprop)
    moved = compulsory_bytes(leaves, calls[FORWARD](), output_saved)
    return {where: Task(call, multiply_adds[where], moved[where]) for where, call in calls.items()}


def by_formula(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function`` with the plain-PyTorch formula behind our ops."""

    def run(*inputs: Tensor) -> Tensor:
        with elsa_ext.use_backend("torch"):
            return function(*inputs)

    return run


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function`` compiled as a whole, for these sizes alone."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def own(
    rate: Callable[[Callable[..., Tensor]], dict[str, Task]],
    ours: Callable[..., Tensor],
    baselines: tuple[str, ...],
    name: str = OURS,
) -> Iterator[Contender]:
    """Yield ours, its formula in plain PyTorch, and what the compiler makes of that; ``rate`` makes the tasks."""
    yield Contender(OURS, name, lambda: rate(ours))
    if "formula" in baselines:
        yield Contender("formula", "formula", lambda: rate(by_formula(ours)))
    if "compile" in baselines:
        yield Contender("compile", "formula, torch.compile", lambda: rate(by_formula(compiled(ours))))


def compulsory_bytes(leaves: Iterable[Tensor], out: Tensor, output_saved: bool) -> dict[str, int]:
    """Return what has to be moved if every tensor is once: inputs and output, in the backward with all gradients.

    Args:
        leaves: The inputs.
        out: The output.
        output_saved: The backward reads the output too.
    """
    inputs, output = sum(leaf.nbytes for leaf in leaves), out.nbytes
    return {FORWARD: inputs + output, BACKWARD: 3 * inputs + (3 if output_saved else 2) * output}


def in_layout(image: Tensor, layout: str) -> Tensor:
    """Return a (B, C, H, W) map in ``layout``."""
    return image.contiguous(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)


def random_map(size: tuple[int, ...], dtype: str, layout: str, device: torch.device) -> Tensor:
    """Return a random (B, C, H, W) map in ``layout``."""
    return in_layout(torch.randn(size, dtype=getattr(torch, dtype), device=device), layout)


def softmax_over_taps(logits: Tensor, heads: int, layout: str) -> Tensor:
    """Return attention maps, (B, heads·K², H, W) in ``layout``."""
    return in_layout(logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2), layout)

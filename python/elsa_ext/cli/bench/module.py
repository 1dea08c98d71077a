"""``elsa-ext bench module``: the ELSA layer against window and outlook attention."""

import argparse
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.volo import OutlookAttention
from torch import Tensor, nn

from ...nn import ELSA
from .contenders import (
    BACKWARD,
    FORWARD,
    OURS,
    Comparison,
    Contender,
    Task,
    both_ways,
    by_formula,
    compiled,
    directions,
    random_map,
    rated,
    wanted,
)
from .counting import count_multiply_adds
from .neighbours import ATTENDS, NAMES, NeighbourAttention, attention_multiply_adds
from .problems import MATRICES, Problem, problems


def comparisons(args: argparse.Namespace, device: torch.device) -> list[Comparison]:
    """Return one comparison per problem."""
    return [
        Comparison(
            label=f"ELSA, {problem.name}",
            title=f"ELSA, {problem.name}: {problem}, {MATRICES[problem.matrices]}",
            problem={"op": "ELSA", **problem.identity()},
            directions=directions(args.backprop),
            contenders=functools.partial(contenders, problem, device, args.backprop, wanted(args)),
        )
        for problem in problems(args)
    ]


def contenders(
    problem: Problem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield the layer and its baselines."""
    size = (problem.batch, problem.channels, problem.height, problem.width)
    x = random_map(size, problem.dtype, problem.layout, device).permute(0, 2, 3, 1).requires_grad_()
    layer = elsa(problem).to(x)
    leaves = [x, *layer.parameters()]
    counts = functools.cache(lambda: multiply_adds(ours, leaves, backprop))

    def ours(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x)

    def tasks(function: Callable[..., Tensor]) -> dict[str, Task]:
        return rated(function, leaves, backprop, counts())

    yield Contender(OURS, "elsa_ext.nn.ELSA", lambda: tasks(ours))
    if "formula" in baselines:
        yield Contender("formula", "formula", lambda: tasks(by_formula(ours)))
    if "compile" in baselines:
        yield Contender("compile", "formula, torch.compile", lambda: tasks(by_formula(compiled(ours))))
    if "timm" in baselines:
        name, make = timm_peer(problem)
        yield Contender("timm", name, lambda: replaced(make, x, backprop))
    for key, name in NAMES.items():
        if key in baselines:
            yield Contender(key, name, functools.partial(neighbour, key, problem, x, backprop))


def elsa(problem: Problem) -> ELSA:
    """Return the layer as the published models have it."""
    return ELSA(
        problem.channels,
        problem.heads,
        dim_qk=problem.dim_qk,
        kernel_size=problem.kernel_size,
        stride=problem.stride,
        dilation=problem.dilation,
        qkv_bias=True,
        qk_scale=1,
        group_width=problem.group_width,
        lam=int(problem.matrices in ("both", "mul")),
        gamma=int(problem.matrices in ("both", "add")),
    )


class Peer(NamedTuple):
    """What the layer replaces: the module, the part whose weights take part, and the function to time."""

    module: nn.Module
    weights: nn.Module
    function: Callable[[Tensor], Tensor]


def timm_peer(problem: Problem) -> tuple[str, Callable[[], Peer]]:
    """Return name and maker of what the layer replaces."""

    def window() -> Peer:
        if problem.stride > 1:
            raise ValueError("it has no stride")
        size = (problem.height, problem.width)
        block = SwinTransformerBlock(problem.channels, size, problem.heads, window_size=7, shift_size=3)
        return Peer(block, block.attn, block._attn)

    def outlook() -> Peer:
        module = OutlookAttention(problem.channels, problem.heads, kernel_size=3, padding=1, stride=2)
        return Peer(module, module, module)

    if problem.name.startswith("volo"):
        return "timm outlook attention", outlook
    return "timm window attention", window


def replaced(make: Callable[[], Peer], x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of what the layer replaces."""
    peer = make()
    peer.module.to(x)
    leaves = [x, *peer.weights.parameters()]

    def forward(x: Tensor, *_: Tensor) -> Tensor:
        return peer.function(x)

    return rated(forward, leaves, backprop, multiply_adds(forward, leaves, backprop))


def neighbour(key: str, problem: Problem, x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of other local attention, with projections around it as in a transformer."""
    module = NeighbourAttention(problem.channels, problem.heads, ATTENDS[key](problem, x.device), problem.stride).to(x)
    # No counter sees into a compiled kernel. The projections: three of every pixel, one of every output pixel.
    projected = problem.batch * (3 * problem.height * problem.width + math.prod(problem.out_size))
    forward = projected * problem.channels**2 + attention_multiply_adds(problem)
    counts = {FORWARD: forward, BACKWARD: 3 * forward}
    return rated(lambda x, *_: module(x), [x, *module.parameters()], backprop, counts)


def multiply_adds(function: Callable[..., Tensor], leaves: list[Tensor], backprop: bool) -> dict[str, int]:
    """Return the multiply-adds of ``function`` in every direction."""
    counts = {FORWARD: count_multiply_adds(both_ways(function, leaves, backprop=False)[FORWARD])}
    if backprop:
        # The counter follows the modules by hooks that autograd.grad does not allow.
        counts[BACKWARD] = count_multiply_adds(lambda: function(*leaves).sum().backward())
        for leaf in leaves:
            leaf.grad = None
    return counts

"""The ELSA layer against window and outlook attention."""

import functools
import math
from collections.abc import Callable, Iterator

import torch
from timm.models.volo import OutlookAttention
from torch import Tensor

from ...nn import ELSA
from .contenders import (
    BACKWARD,
    FORWARD,
    Contender,
    Task,
    own,
    random_map,
    rated,
)
from .layers import Peer, multiply_adds, replaced, window_attention
from .neighbours import ATTENDS, NAMES, NeighbourAttention, attention_multiply_adds
from .problem_elsa import ElsaProblem


def contenders(
    problem: ElsaProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
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

    yield from own(tasks, ours, baselines, "elsa_ext.nn.ELSA")
    if "timm" in baselines:
        name, make = timm_peer(problem)
        yield Contender("timm", name, lambda: replaced(make, x, backprop))
    for key, name in NAMES.items():
        if key in baselines:
            yield Contender(key, name, functools.partial(neighbour, key, problem, x, backprop))


def elsa(problem: ElsaProblem) -> ELSA:
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


def timm_peer(problem: ElsaProblem) -> tuple[str, Callable[[], Peer]]:
    """Return name and maker of what the layer replaces."""

    def window() -> Peer:
        if problem.stride > 1:
            raise ValueError("it has no stride")
        return window_attention(problem)

    def outlook() -> Peer:
        module = OutlookAttention(problem.channels, problem.heads, kernel_size=3, padding=1, stride=2)
        return Peer(module, module, module)

    if problem.name.startswith("volo"):
        return "timm outlook attention", outlook
    return "timm window attention", window


def neighbour(key: str, problem: ElsaProblem, x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of other local attention, with projections around it as in a transformer."""
    module = NeighbourAttention(problem.channels, problem.heads, ATTENDS[key](problem, x.device), problem.stride).to(x)
    # No counter sees into a compiled kernel. The projections: three of every pixel, one of every output pixel.
    projected = problem.batch * (3 * problem.height * problem.width + math.prod(problem.out_size))
    forward = projected * problem.channels**2 + attention_multiply_adds(problem)
    counts = {FORWARD: forward, BACKWARD: 3 * forward}
    return rated(lambda x, *_: module(x), [x, *module.parameters()], backprop, counts)

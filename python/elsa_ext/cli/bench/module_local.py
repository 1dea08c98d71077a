"""The layer of neighbourhood attention against window attention, and the attention of others between projections."""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .contenders import BACKWARD, FORWARD, Contender, Task, own, random_map, rated
from .layers import multiply_adds, replaced, window_attention
from .local_peers import Peer, PeerAttention, peers
from .op_local import count_attention
from .problem_local import LocalProblem


def contenders(
    problem: LocalProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield `elsa_ext.nn.NeighborhoodAttention` and its baselines."""
    from ...nn import NeighborhoodAttention

    x = random_map(problem.shape, problem.dtype, problem.layout, device).permute(0, 2, 3, 1).requires_grad_()
    options = {name: value for name, value in problem.neighbourhood.items() if name != "heads"}
    layer = NeighborhoodAttention(problem.channels, problem.heads, rel_pos_bias=problem.bias == "relative", **options)
    leaves = [x, *layer.to(x).parameters()]
    counts = functools.cache(lambda: multiply_adds(ours, leaves, backprop))

    def ours(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x)

    def tasks(function: Callable[..., Tensor]) -> dict[str, Task]:
        return rated(function, leaves, backprop, counts())

    yield from own(tasks, ours, baselines, "elsa_ext.nn.NeighborhoodAttention")
    if "timm" in baselines:
        yield Contender(
            "timm", "timm window attention", lambda: replaced(lambda: window_attention(problem), x, backprop)
        )
    for peer in peers(problem, layer.rpb, device):
        if peer.key in baselines:
            yield Contender(peer.key, peer.name, functools.partial(between_projections, peer, problem, x, backprop))


def between_projections(peer: Peer, problem: LocalProblem, x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of other attention with projections around it."""
    module = PeerAttention(problem, peer.make()).to(x)
    # No counter sees into a compiled kernel. The projections: three before the attention and one after it.
    projections = 4 * problem.batch * problem.height * problem.width * problem.channels**2
    times = {FORWARD: 1, BACKWARD: 3}
    counts = {
        where: times[where] * projections + number * peer.taps // problem.taps
        for where, number in count_attention(problem).items()
    }
    return rated(lambda x, *_: module(x), [x, *module.parameters(), *peer.learned], backprop, counts)

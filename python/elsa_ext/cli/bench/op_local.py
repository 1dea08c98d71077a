"""The ops of neighbourhood attention against their formula, PyTorch's own attention, and NATTEN."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

import elsa_ext

from ...ops import flops
from .contenders import BACKWARD, FORWARD, Contender, Task, own, random_map, rated
from .local_peers import Peer, natten_logits, peers
from .problem_local import LocalProblem

Function = Callable[..., Tensor]


def neighborhood_attention(
    problem: LocalProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield `elsa_ext.neighborhood_attention` and its baselines."""
    leaves = make_leaves(problem, 3, device)

    def rate(function: Function) -> dict[str, Task]:
        return rated(function, leaves, backprop, count_attention(problem))

    yield from same_work(problem, rate, attend, attend_unfolded, baselines)
    if "unfused" in baselines:
        counts = count_in_two(problem)
        yield Contender("unfused", "elsa_ext, two ops", lambda: rated(attend_in_two(problem), leaves, backprop, counts))
    for peer in peers(problem, bias_of(leaves), device):
        if peer.key in baselines:
            yield Contender(peer.key, peer.name, functools.partial(other, peer, problem, leaves[0], backprop))


def neighborhood_logits(
    problem: LocalProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield `elsa_ext.neighborhood_logits` and its baselines."""
    leaves = make_leaves(problem, 2, device)

    def rate(function: Function) -> dict[str, Task]:
        return rated(function, leaves, backprop, count_logits(problem))

    yield from same_work(problem, rate, compare, compare_unfolded, baselines)
    if "natten" in baselines:
        yield Contender("natten", "NATTEN", lambda: other_logits(problem, leaves, backprop))


def same_work(
    problem: LocalProblem,
    rate: Callable[[Function], dict[str, Task]],
    make: Callable[[LocalProblem], Function],
    unfolded: Callable[[LocalProblem], Function],
    baselines: tuple[str, ...],
) -> Iterator[Contender]:
    """Yield what takes the maps of an op as they are."""
    yield from own(rate, make(problem), baselines)
    if "zeros" in baselines and problem.border != "zeros":
        at_zeros = make(replace(problem, border="zeros", window_stride=1))
        yield Contender("zeros", "elsa_ext, border zeros", lambda: rate(at_zeros))
    if "unfold" in baselines:
        yield Contender("unfold", "F.unfold, border zeros", lambda: rate(unfolded(problem)))


def make_leaves(problem: LocalProblem, maps: int, device: torch.device) -> list[Tensor]:
    """Return random maps, and the bias if there is one."""
    leaves = [random_map(problem.shape, problem.dtype, problem.layout, device) for _ in range(maps)]
    if problem.bias_shape:
        leaves.append(torch.randn(problem.bias_shape, dtype=leaves[0].dtype, device=device))
    return [leaf.requires_grad_() for leaf in leaves]


def bias_of(leaves: list[Tensor]) -> Tensor | None:
    """Return the bias among the leaves."""
    return leaves[-1] if leaves[-1].dim() == 3 else None


def attend(problem: LocalProblem) -> Function:
    """Return our op, of query, key, value and bias."""

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        return elsa_ext.neighborhood_attention(query, key, value, bias, scale=problem.scale, **problem.neighbourhood)

    return run


def compare(problem: LocalProblem) -> Function:
    """Return our op, of query, key and bias."""

    def run(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
        return elsa_ext.neighborhood_logits(query, key, bias, scale=problem.scale, **problem.neighbourhood)

    return run


def attend_in_two(problem: LocalProblem) -> Function:
    """Return the two ops with a softmax between, which takes the taps where they lie."""
    logits_of = compare(problem)

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = logits_of(query, key, bias)
        if problem.layout == "channels_last":
            by_pixel = logits.permute(0, 2, 3, 1).unflatten(3, (problem.heads, -1))
            attn = by_pixel.softmax(4).flatten(3).permute(0, 3, 1, 2)
        else:
            attn = logits.unflatten(1, (problem.heads, -1)).softmax(2).flatten(1, 2)
        options = {name: value for name, value in problem.neighbourhood.items() if name != "heads"}
        return elsa_ext.ghost_head(value, attn, **options)

    return run


def attend_unfolded(problem: LocalProblem) -> Function:
    """Return the formula that people write: neighbours by F.unfold, zeros beyond the map."""
    logits_of = compare_unfolded(problem)

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        attn = logits_of(query, key, bias).unflatten(1, (problem.heads, -1)).flatten(3).softmax(2)
        out = (attn[:, :, None] * unfold(value, problem)).sum(3)
        return out.reshape(value.shape)

    return run


def compare_unfolded(problem: LocalProblem) -> Function:
    """Return its logits."""

    def run(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
        by_head = query.reshape(problem.batch, problem.heads, -1, 1, problem.height * problem.width)
        logits = (by_head * problem.scale * unfold(key, problem)).sum(2)
        if bias is not None:
            first = problem.kernel_size - 1 - problem.kernel_size // 2
            taps = bias.narrow(1, first, problem.kernel_size).narrow(2, first, problem.kernel_size)
            logits = logits + taps.reshape(problem.heads, -1, 1)
        return logits.reshape(problem.batch, -1, problem.height, problem.width)

    return run


def unfold(image: Tensor, problem: LocalProblem) -> Tensor:
    """Return the neighbours of every pixel, (B, heads, D, K², H·W)."""
    before, after = (side * problem.dilation for side in (problem.kernel_size // 2, (problem.kernel_size - 1) // 2))
    padded = F.pad(image, (before, after, before, after))
    columns = F.unfold(padded, problem.kernel_size, problem.dilation)
    return columns.reshape(problem.batch, problem.heads, -1, problem.taps, problem.height * problem.width)


def other(peer: Peer, problem: LocalProblem, like: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of other attention; its work goes by the number of pixels that a pixel attends to."""
    attention = peer.make()
    leaves = maps_of_heads(problem, 3, like, peer.heads_first)
    counts = {where: number * peer.taps // problem.taps for where, number in count_attention(problem).items()}
    return rated(lambda *maps: attention(*maps[:3]), [*leaves, *peer.learned], backprop, counts)


def other_logits(problem: LocalProblem, leaves: list[Tensor], backprop: bool) -> dict[str, Task]:
    """Return the tasks of NATTEN's logits."""
    logits = natten_logits(problem, bias_of(leaves))
    maps = maps_of_heads(problem, 2, leaves[0], heads_first=True)
    return rated(lambda *maps: logits(*maps[:2]), [*maps, *leaves[2:]], backprop, count_logits(problem))


def maps_of_heads(problem: LocalProblem, count: int, like: Tensor, heads_first: bool) -> list[Tensor]:
    """Return random maps (B, H, W, heads, D) of the dtype and device of ``like``."""
    batch, channels, height, width = problem.shape
    heads, depth = problem.heads, channels // problem.heads
    size = (batch, heads, height, width, depth) if heads_first else (batch, height, width, heads, depth)
    maps = [torch.randn(size, dtype=like.dtype, device=like.device) for _ in range(count)]
    return [(image.permute(0, 2, 3, 1, 4) if heads_first else image).requires_grad_() for image in maps]


def count_attention(problem: LocalProblem) -> dict[str, int]:
    """Return the multiply-adds of the attention."""
    shapes, options = (problem.shape,) * 3, {"heads": problem.heads, "kernel_size": problem.kernel_size}
    forward = flops.neighborhood_attention(*shapes, problem.bias_shape, **options)
    backward = flops.neighborhood_attention_backward((), *shapes, problem.bias_shape, **options)
    return {FORWARD: forward, BACKWARD: forward + backward}


def count_logits(problem: LocalProblem) -> dict[str, int]:
    """Return the multiply-adds of the logits."""
    shapes, options = (problem.shape,) * 2, {"heads": problem.heads, "kernel_size": problem.kernel_size}
    forward = flops.neighborhood_logits(*shapes, problem.bias_shape, **options)
    backward = flops.neighborhood_logits_backward((), *shapes, problem.bias_shape, **options)
    return {FORWARD: forward, BACKWARD: forward + backward}


def count_in_two(problem: LocalProblem) -> dict[str, int]:
    """Return the multiply-adds of the logits and of the aggregation."""
    batch, _, height, width = problem.shape
    shapes = (problem.shape, (batch, problem.heads * problem.taps, height, width), None, None)
    forward = flops.ghost_head(*shapes, kernel_size=problem.kernel_size)
    backward = flops.ghost_head_backward((), *shapes, kernel_size=problem.kernel_size)
    logits = count_logits(problem)
    return {FORWARD: logits[FORWARD] + forward, BACKWARD: logits[BACKWARD] + forward + backward}

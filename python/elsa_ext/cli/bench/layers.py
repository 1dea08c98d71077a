"""Layers to compare ours with, and what they cost."""

from collections.abc import Callable
from typing import NamedTuple

from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from .contenders import BACKWARD, FORWARD, Task, both_ways, rated
from .counting import count_multiply_adds
from .problems import Problem


class Peer(NamedTuple):
    """What the layer replaces: the module, the part whose weights take part, and the function to time."""

    module: nn.Module
    weights: nn.Module
    function: Callable[[Tensor], Tensor]


def window_attention(problem: Problem) -> Peer:
    """Return the shifted window attention of Swin."""
    size = (problem.height, problem.width)
    block = SwinTransformerBlock(problem.channels, size, problem.heads, window_size=7, shift_size=3)
    return Peer(block, block.attn, block._attn)


def replaced(make: Callable[[], Peer], x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of what the layer replaces."""
    peer = make()
    peer.module.to(x)
    leaves = [x, *peer.weights.parameters()]

    def forward(x: Tensor, *_: Tensor) -> Tensor:
        return peer.function(x)

    return rated(forward, leaves, backprop, multiply_adds(forward, leaves, backprop))


def multiply_adds(function: Callable[..., Tensor], leaves: list[Tensor], backprop: bool) -> dict[str, int]:
    """Return the multiply-adds of ``function`` in every direction."""
    counts = {FORWARD: count_multiply_adds(both_ways(function, leaves, backprop=False)[FORWARD])}
    if backprop:
        # The counter follows the modules by hooks that autograd.grad does not allow.
        counts[BACKWARD] = count_multiply_adds(lambda: function(*leaves).sum().backward())
        for leaf in leaves:
            leaf.grad = None
    return counts

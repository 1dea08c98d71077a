"""NATTEN's tensors, with a dimension for the heads, as maps (B, C, H, W), and the results as theirs again."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """A way to take tensors (B, heads, H, W, channels) as maps."""

    heads: int
    """As the ops are told."""
    to_map: Callable[[Tensor], Tensor]
    from_map: Callable[[Tensor], Tensor]
    to_bias: Callable[[Tensor], Tensor]


def choose(*tensors: Tensor) -> Layout:
    """Return the layout in which the fewest numbers are copied: none if the tensors lie in memory in one way.

    A map has the channels of all heads where those lie side by side, as a linear layer leaves them, (B, H, W, heads,
    channels) in memory. Where the heads are apart, (B, heads, H, W, channels) in memory, each is a sample of its own.
    """
    batch, heads = tensors[0].shape[:2]
    copied_as_samples = sum(t.numel() for t in tensors if not _mergeable(t, 0))
    copied_as_channels = sum(t.numel() for t in tensors if not _mergeable(t, 1))
    return _as_samples(batch, heads) if copied_as_samples <= copied_as_channels else _as_channels(heads)


def _mergeable(tensor: Tensor, dim: int) -> bool:
    """Tell whether the heads can be viewed as one dimension with the batch, 0, or with the channels, 1."""
    outer, inner = ((0, 1), (1, 4))[dim]
    size = tensor.shape
    return size[outer] == 1 or size[inner] == 1 or tensor.stride(outer) == tensor.stride(inner) * size[inner]


def _as_samples(batch: int, heads: int) -> Layout:
    """Take every head as a sample, with a bias of its own."""
    return Layout(
        1,
        lambda tensor: tensor.flatten(0, 1).permute(0, 3, 1, 2),
        lambda out: out.permute(0, 2, 3, 1).unflatten(0, (batch, heads)),
        lambda bias: bias.expand(batch, *bias.shape).flatten(0, 1).unsqueeze(1),
    )


def _as_channels(heads: int) -> Layout:
    """Take every head as some of the channels."""
    return Layout(
        heads,
        lambda tensor: tensor.permute(0, 1, 4, 2, 3).flatten(1, 2),
        lambda out: out.unflatten(1, (heads, -1)).permute(0, 1, 3, 4, 2),
        lambda bias: bias,
    )


def heads_first(tensor: Tensor) -> Tensor:
    """View (B, …, heads, channels) as (B, heads, …, channels), or the other way round by `heads_last`."""
    return tensor.movedim(-2, 1)


def heads_last(tensor: Tensor) -> Tensor:
    """View (B, heads, …, channels) as (B, …, heads, channels)."""
    return tensor.movedim(1, -2)

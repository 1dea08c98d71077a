"""NATTEN's rule, restated: which keys a query attends to, and the attention over heads-first tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def neighbours(length: int, size: int, dilation: int, stride: int, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return of every tap along an axis, (length, size): its key, the offset in dilations, and whether it counts."""
    keys, offsets, counts = (torch.zeros(length, size, dtype=torch.long) for _ in range(3))
    for query in range(length):
        places = list(range(query % dilation, length, dilation))
        place = query // dilation
        first = place - place % stride
        if causal:
            leader = min(first + stride - 1, len(places) - 1)
            start = max(leader - size + 1, 0)
        else:
            leader = min(first + stride // 2, len(places) - 1)
            start = min(max(leader - size // 2, 0), len(places) - size)
        for tap in range(size):
            keys[query, tap] = places[start + tap]
            offsets[query, tap] = start + tap - place
            counts[query, tap] = not causal or start + tap <= place
    return keys, offsets, counts.bool()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    sizes: Sequence[tuple[int, int, int, bool]],
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return logits (B, heads, H, W, taps) and results (B, heads, H, W, channels) of maps (B, heads, H, W, channels).

    ``sizes`` are kernel size, dilation, stride and causal of each axis; ``rpb`` is (heads, 2·Kh − 1, 2·Kw − 1).
    """
    (keys_y, to_y, counts_y), (keys_x, to_x, counts_x) = (
        neighbours(length, *size) for length, size in zip(query.shape[2:4], sizes, strict=True)
    )
    near_keys, near_values = (tensor[:, :, keys_y][:, :, :, :, keys_x] for tensor in (key, value))
    logits = scale * torch.einsum("bhyxc,bhyixjc->bhyxij", query, near_keys)
    if rpb is not None:
        rows, columns = (size[0] for size in sizes)
        logits = logits + rpb[:, to_y + rows - 1][:, :, :, to_x + columns - 1].transpose(2, 3)
    counts = (counts_y[:, :, None, None] & counts_x).transpose(1, 2)
    logits = logits.masked_fill(~counts, -torch.inf)
    attn = logits.flatten(-2).softmax(-1).view_as(logits)
    return logits.flatten(-2), torch.einsum("bhyxij,bhyixjc->bhyxc", attn, near_values)

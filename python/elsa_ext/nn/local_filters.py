"""Local operators whose weights are the same for all samples: no sample has a map of weights to itself."""

import torch.nn.functional as F
from torch import Tensor

from ..ops.ghost_head import ghost_head
from .filter_norm import normalise
from .local_terms import Around, Tables, logits


def static_filters(value: Tensor, tables: Tables, around: Around, norm: str, heads: int, dropout: float) -> Tensor:
    """Sum the values (B, H, W, C) of the taps under weights that are made of ``tables.bias`` alone.

    By a convolution, where a tap weighs the same at every pixel; by a matrix product over the pixels of a window, where
    all windows are alike; else by the ghost head, over the samples side by side as channels of one.
    """
    if around.border == "zeros":
        return _convolution(value, tables, around, norm, dropout)
    if around.window_stride[0] > 1 or around.window_stride[1] > 1:
        return _windows(value, tables, around, norm, heads, dropout)
    return _side_by_side(value, tables, around, norm, heads, dropout)


def _by_channel(weights: Tensor, tables: Tables, channels: int) -> Tensor:
    """Return weights (heads, pixels, taps) under the ghost matrices, one for every channel: (C, pixels, taps)."""
    weights = weights.unsqueeze(1).expand(-1, channels // weights.shape[0], -1, -1).flatten(0, 1)
    mul, add = tables.mul, tables.add
    if mul is not None:
        weights = weights * mul.flatten(1).unsqueeze(1)
    if add is not None:
        weights = weights + add.flatten(1).unsqueeze(1)
    return weights


def _convolution(value: Tensor, tables: Tables, around: Around, norm: str, dropout: float) -> Tensor:
    bias, channels = tables.bias, value.shape[-1]
    assert bias is not None
    weights = F.dropout(normalise(bias.flatten(1), norm, tables.gain), dropout)
    filters = _by_channel(weights.unsqueeze(1), tables, channels).unflatten(2, around.kernel_size)
    before = [size // 2 * step for size, step in zip(around.kernel_size, around.dilation)]  # noqa: B905 TorchScript
    after = [(size - 1) // 2 * step for size, step in zip(around.kernel_size, around.dilation)]  # noqa: B905
    image = value.permute(0, 3, 1, 2)
    if before != after:  # of an even kernel size
        image, before = F.pad(image, [before[1], after[1], before[0], after[0]]), [0, 0]
    return F.conv2d(image, filters, None, 1, before, around.dilation, channels).permute(0, 2, 3, 1)


def _windows(value: Tensor, tables: Tables, around: Around, norm: str, heads: int, dropout: float) -> Tensor:
    rows, columns = around.kernel_size[0], around.kernel_size[1]
    down, right = around.dilation[0], around.dilation[1]
    window = Around(around.kernel_size, [1, 1], around.border, around.kernel_size)
    inside = logits(None, None, tables, window, heads, 1.0, False, value[:, :rows, :columns])
    weights = F.dropout(normalise(inside, norm, tables.gain), dropout)[0].flatten(0, 1).transpose(0, 1)
    if tables.mul is not None or tables.add is not None:
        weights = _by_channel(weights, tables, value.shape[-1])
    # Rows and columns are those of windows, of taps, and of what the dilation leaves out.
    cut = value.unflatten(2, [-1, columns, right]).unflatten(1, [-1, rows, down]).unflatten(-1, [weights.shape[0], -1])
    by_tap = cut.permute(7, 2, 5, 0, 1, 3, 4, 6, 8)
    out = (weights @ by_tap.flatten(3).flatten(1, 2)).view(by_tap.shape)
    return out.permute(3, 4, 1, 5, 6, 2, 7, 0, 8).reshape(value.shape)


def _side_by_side(value: Tensor, tables: Tables, around: Around, norm: str, heads: int, dropout: float) -> Tensor:
    between = logits(None, None, tables, around, heads, 1.0, False, value)
    weights = F.dropout(normalise(between, norm, tables.gain), dropout).flatten(3)
    samples = value.unflatten(-1, [heads, -1]).permute(1, 2, 3, 0, 4)  # (H, W, heads, B, C / heads)
    out: Tensor = ghost_head(
        samples.flatten(2).unsqueeze(0).permute(0, 3, 1, 2),
        weights.permute(0, 3, 1, 2),
        _for_samples(tables.mul, heads, value.shape[0]),
        _for_samples(tables.add, heads, value.shape[0]),
        kernel_size=around.kernel_size,
        dilation=around.dilation,
        border=around.border,
        window_stride=around.window_stride,
    )
    return out.permute(0, 2, 3, 1)[0].view(samples.shape).permute(3, 0, 1, 2, 4).flatten(3)


def _for_samples(matrix: Tensor | None, heads: int, samples: int) -> Tensor | None:
    """Repeat a ghost matrix for the channels of all samples."""
    if matrix is None:
        return None
    return matrix.unflatten(0, [heads, -1]).unsqueeze(1).expand(-1, samples, -1, -1, -1).flatten(0, 2)

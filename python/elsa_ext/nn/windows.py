"""Windows of a map that start at some row and column: where they are, and what of the tables is theirs."""

import torch.nn.functional as F
from torch import Tensor

from .local_terms import Around, Tables


def padded(x: Tensor, kernel_size: list[int], dilation: list[int]) -> Tensor:
    """Pad a map (B, H, W, C) with zeros below and to the right, until windows divide its size."""
    rows, columns = kernel_size[0] * dilation[0], kernel_size[1] * dilation[1]
    below, right = (rows - x.shape[1] % rows) % rows, (columns - x.shape[2] % columns) % columns
    if below == 0 and right == 0:
        return x
    return F.pad(x, [0, 0, 0, right, 0, below])


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """Return what lies within the size of ``like`` of a map (B, H, W, C)."""
    if x.shape[1] == like.shape[1] and x.shape[2] == like.shape[2]:
        return x
    return x[:, : like.shape[1], : like.shape[2]]


def parts(length: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """Cut an axis that ``window`` divides where windows are whole and where they are not: [(start, end, first tap)].

    A window starts at ``shift`` and every ``window`` pixels; what is before the first is the end of one, and the last
    pixels are the beginning of one.
    """
    if shift == 0:
        return [(0, length, 0)]
    last = length - window + shift
    found = [(0, shift, window - shift)]
    if shift < last:
        found.append((shift, last, 0))
    found.append((last, length, 0))
    return found


def part_of(tables: Tables, kernel_size: list[int], size: list[int], first_tap: list[int]) -> Tables:
    """Return what windows or neighbourhoods of ``size`` have of the tables of ``kernel_size``."""
    key, query, bias, mul, add = tables.key, tables.query, tables.bias, tables.mul, tables.add
    for axis in range(2):
        least, offsets = kernel_size[axis] - size[axis], 2 * size[axis] - 1
        if least > 0:
            key = None if key is None else key.narrow(axis + 2, least, offsets)
            query = None if query is None else query.narrow(axis + 2, least, offsets)
            bias = None if bias is None else bias.narrow(axis + 1, least, offsets)
            mul = None if mul is None else mul.narrow(axis + 1, first_tap[axis], size[axis])
            add = None if add is None else add.narrow(axis + 1, first_tap[axis], size[axis])
    return Tables(key, query, bias, mul, add, tables.gain)


def fitting(tables: Tables, around: Around, height: int, width: int) -> tuple[Tables, Around]:
    """Make neighbourhoods of the border "shift" fit in a map: where an axis is too short, they have fewer taps."""
    size, dilation, length = list(around.kernel_size), list(around.dilation), [height, width]
    for axis in range(2):
        if size[axis] * dilation[axis] > length[axis]:
            dilation[axis] = min(dilation[axis], length[axis])
            size[axis] = length[axis] // dilation[axis]
    first_tap = [(around.kernel_size[axis] - size[axis]) // 2 for axis in range(2)]
    tables = part_of(tables, around.kernel_size, size, first_tap)
    return tables, Around(size, dilation, around.border, around.window_stride)

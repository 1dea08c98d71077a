"""The weights of local operators before they are normalised: sums of terms of a query, a key and what is between them.

Maps are channels-last, (B, H, W, channels). ``U`` is the number of offsets that a table has an entry for: one for every
tap, or where the neighbourhood moves, (2·Kh − 1)·(2·Kw − 1), from key to query, key less query.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.local import neighbours
from ..ops.neighborhood_logits import neighborhood_logits


class Tables(NamedTuple):
    """What is learned of a local operator, each None where it is not there."""

    key: Tensor | None
    """r^k, which the query is multiplied by: (heads, head_dim, rows, columns) of offsets."""
    query: Tensor | None
    """r^q, which the key is multiplied by, likewise."""
    bias: Tensor | None
    """r^b, (heads, rows, columns)."""
    mul: Tensor | None
    """The ghost matrix that the weights are multiplied by, (channels, Kh, Kw)."""
    add: Tensor | None
    """The one that is added to them, likewise."""
    gain: Tensor | None
    """What filter normalisation multiplies by, (heads,)."""


class Around(NamedTuple):
    """What a pixel looks at: options of the ops, both axes each."""

    kernel_size: list[int]
    dilation: list[int]
    border: str
    window_stride: list[int]


def logits(
    query: Tensor | None,
    key: Tensor | None,
    tables: Tables,
    around: Around,
    heads: int,
    scale: float,
    products: bool,
    like: Tensor,
) -> Tensor:
    """Return the sum of the terms, (B, H, W, heads, taps), or (1, …) if none is of a query or a key.

    Args:
        query: (B, H, W, C) or None.
        key: Likewise.
        tables: See `Tables`.
        around: See `Around`.
        heads: Divides C.
        scale: Of the products of query and key.
        products: Whether these are among the terms.
        like: A map of the size, dtype and device of the query, (B, H, W, …).
    """
    r_key, r_query = tables.key, tables.query  # TorchScript narrows the type of a variable alone
    out: Tensor | None = None
    if products or tables.bias is not None or around.border == "mask":
        out = _by_the_op(
            query if products else None, key if products else None, tables.bias, around, heads, scale, like
        )
    if query is not None and r_key is not None:
        of_query = _at_taps(_with_table(query, r_key), around, True)
        out = of_query if out is None else out + of_query
    if key is not None and r_query is not None:
        of_key = _at_taps(_with_table(key, r_query), around, False)
        out = of_key if out is None else out + of_key
    assert out is not None
    return out


def _by_the_op(
    query: Tensor | None,
    key: Tensor | None,
    bias: Tensor | None,
    around: Around,
    heads: int,
    scale: float,
    like: Tensor,
) -> Tensor:
    """Return products of query and key, or zeros, plus the bias, and −∞ where a tap does not count."""
    if query is None or key is None:
        query = like.new_zeros([1, like.shape[1], like.shape[2], heads])
        key = query
    taps = around.kernel_size[0] * around.kernel_size[1]
    if bias is not None and around.border != "shift":
        bias = bias.flatten(1)  # one for every tap
    out: Tensor = neighborhood_logits(
        query.permute(0, 3, 1, 2),
        key.permute(0, 3, 1, 2),
        bias,
        heads=heads,
        kernel_size=around.kernel_size,
        dilation=around.dilation,
        scale=scale,
        border=around.border,
        window_stride=around.window_stride,
    )
    return out.permute(0, 2, 3, 1).unflatten(-1, [heads, taps])


def _with_table(x: Tensor, table: Tensor) -> Tensor:
    """Multiply every pixel by the table's vector for every offset: (B, H, W, heads, U)."""
    return torch.einsum("bhwnd,ndu->bhwnu", x.unflatten(-1, [table.shape[0], table.shape[1]]), table.flatten(2))


def _at_taps(products: Tensor, around: Around, of_query: bool) -> Tensor:
    """Take of (B, H, W, heads, U) what belongs to the taps: (B, H, W, heads, taps).

    ``out[i, t] = products[i, u]`` if they are of the query, ``products[j, u]`` if they are of the key, where j is what
    tap t of output i reads, and u the number of the offset j − i; 0 if j is outside the map.
    """
    fixed = around.border != "shift"
    if fixed and of_query:
        return products
    height, width, heads, offsets = products.shape[1], products.shape[2], products.shape[3], products.shape[4]
    rows, columns = around.kernel_size[0], around.kernel_size[1]
    device = products.device
    y = neighbours(height, rows, around.dilation[0], around.border, around.window_stride[0], False, device)
    x = neighbours(width, columns, around.dilation[1], around.border, around.window_stride[1], False, device)
    source_y, source_x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)[:, None]
    if not of_query:
        source_y, source_x = y.source, x.source
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    if fixed:
        place_y, place_x, row_length = row[None], column[None], columns
    else:
        place_y, place_x = y.offset[:, None] + row + rows - 1, x.offset[:, None] + column + columns - 1
        row_length = 2 * columns - 1
    source = _outer(source_y, source_x, width)
    place = _outer(place_y, place_x, row_length)
    index = source * (heads * offsets) + place  # (H, W, taps), but for the head
    index = index.unsqueeze(2) + torch.arange(heads, device=device)[:, None] * offsets
    index = index.expand(height, width, heads, rows * columns)
    # No number is taken twice, so that the gradient is a copy too: its sums are the same in every run.
    taken = products.flatten(1).gather(1, index.reshape(1, -1).expand(products.shape[0], -1)).unflatten(1, index.shape)
    inside_y, inside_x = y.inside, x.inside
    if not of_query and inside_y is not None and inside_x is not None:
        inside = (inside_y[:, None, :, None] & inside_x[:, None, :]).flatten(2)
        taken = taken.masked_fill(~inside.unsqueeze(2), 0.0)
    return taken


def _outer(y: Tensor, x: Tensor, row_length: int) -> Tensor:
    """Return ``y · row_length + x`` for numbers of both axes, (H or 1, Kh or 1) and (W or 1, Kw or 1): (…, …, taps)."""
    number = y[:, None, :, None] * row_length + x[:, None, :]
    return number.flatten(2)

"""What a picture of ``elsa-ext attend`` shows: which pixels, heads and channels of a layer, and their numbers."""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...nn import LocalWeights
from ..checkpoint import Checkpoint
from ..errors import CommandError
from .arguments import MOST_CHANNELS, MOST_HEADS, MOST_PIXELS
from .layers import describe

CHANGED = 8  # channels whose filters are drawn where nobody chooses


class Sight(NamedTuple):
    """What a layer looks at from one pixel of the picture."""

    pixel: tuple[int, int]
    cell: tuple[int, int]
    """The output of the layer's map that the pixel is in."""
    rows: list[int]
    """(Kh): which row of its input's map each row of taps looks at, which may be beyond the map."""
    columns: list[int]
    counts: NDArray[Any]
    """(Kh, Kw): whether there is such a tap."""
    weights: NDArray[Any]
    """(heads, Kh, Kw), of the chosen heads."""
    before: NDArray[Any]
    """(channels, Kh, Kw), of the chosen channels: the weights of their heads."""
    after: NDArray[Any]
    """Likewise: these under the ghost matrices."""


class Scene(NamedTuple):
    """All that a picture shows."""

    model: str
    layer: str
    kind: str
    found: LocalWeights
    picture: NDArray[Any]
    """(height, width, 3), what the model sees, from 0 to 1."""
    cell_in: tuple[int, int]
    """Rows and columns of pixels that are a cell of the map which the layer looks at."""
    cell_out: tuple[int, int]
    """Likewise of the map that it makes."""
    heads: list[int]
    channels: list[int]
    sights: list[Sight]


def scene_of(
    checkpoint: Checkpoint,
    name: str,
    layer: nn.Module,
    found: LocalWeights,
    images: Tensor,
    args: argparse.Namespace,
) -> Scene:
    """Choose what to show."""
    size = tuple(images.shape[2:])
    pixels = args.at or grid(size, args.grid or 2)
    if len(pixels) > MOST_PIXELS:
        raise CommandError(f"--at has {len(pixels)} pixels, and a picture shows {MOST_PIXELS}")
    for row, column in pixels:
        if row >= size[0] or column >= size[1]:
            raise CommandError(f"--at {row},{column} is outside of the {times(size)} pixels that the model sees")
    heads = chosen("--heads", args.heads, found.heads, MOST_HEADS, range(min(found.heads, MOST_HEADS)))
    lengths = (found.rows.length, found.columns.length)
    cell_in = cells_of(size, lengths)
    cell_out = cells_of_outputs(cell_in, lengths, found.weights.shape[3:])
    last = [length - 1 for length in found.weights.shape[3:]]
    cells = [
        tuple(min(place // step, end) for place, step, end in zip(at, cell_out, last, strict=True)) for at in pixels
    ]
    outputs = [found.at(*cell) for cell in cells]
    if not all(seen.filters(range(found.channels)).isfinite().all() for seen in outputs):
        raise CommandError(f"the weights of {name} are not finite for this image")
    has_matrices = found.mul is not None or found.add is not None
    if args.channels and not has_matrices:
        raise CommandError(f"--channels: {name} has no ghost matrices, and the filters are the weights of the heads")
    changed = most_changed(outputs) if has_matrices else []
    channels = chosen("--channels", args.channels, found.channels, MOST_CHANNELS, changed)
    sights = [sight(at, cell, output, heads, channels) for at, cell, output in zip(pixels, cells, outputs, strict=True)]
    mean, std = (torch.tensor(checkpoint.input[key])[:, None, None] for key in ("mean", "std"))
    picture = (images[0] * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    return Scene(checkpoint.model, name, describe(layer), found, picture, cell_in, cell_out, heads, channels, sights)


def grid(size: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Return the pixels in the middle of count x count equal parts of a picture."""
    rows, columns = ([(2 * part + 1) * length // (2 * count) for part in range(count)] for length in size)
    return [(row, column) for row in rows for column in columns]


def chosen(flag: str, given: list[int] | None, there: int, most: int, default: Sequence[int]) -> list[int]:
    """Return the numbers of heads or channels to show."""
    what = flag.removeprefix("--")
    if given is None:
        return list(default)
    for number in given:
        if number >= there:
            raise CommandError(f"{flag} {number}: the layer has {what} 0 to {there - 1}")
    if len(given) > most:
        raise CommandError(f"{flag} has {len(given)} {what}, and a picture shows {most}")
    return given


def cells_of(picture: Sequence[int], map_size: Sequence[int]) -> tuple[int, int]:
    """Return the sizes in pixels of a cell of a map that covers a picture, which it may have been padded for."""
    rows, columns = (-(-length // cells) for length, cells in zip(picture, map_size, strict=True))
    return rows, columns


def cells_of_outputs(cell_in: Sequence[int], lengths: Sequence[int], outputs: Sequence[int]) -> tuple[int, int]:
    """Return those of a map of outputs: as many inputs as the stride has, which may leave out the last ones."""
    rows, columns = (
        cell * round(length / count) if count <= length else -(-cell * length // count)
        for cell, length, count in zip(cell_in, lengths, outputs, strict=True)
    )
    return rows, columns


def most_changed(outputs: Sequence[LocalWeights]) -> list[int]:
    """Return, in order, the channels whose filters differ most, by the root of the squares, from their weights."""
    channels = range(outputs[0].channels)
    squares = sum((seen.filters(channels) - seen.of_channels(channels)).square().sum((0, 2, 3, 4)) for seen in outputs)
    assert isinstance(squares, Tensor)
    return sorted(squares.topk(min(CHANGED, len(channels))).indices.tolist())


def sight(
    pixel: tuple[int, int], cell: tuple[int, ...], seen: LocalWeights, heads: list[int], channels: list[int]
) -> Sight:
    """Take the numbers of one output as arrays."""
    taps = seen.kernel_size

    def squares(weights: Tensor) -> NDArray[Any]:
        return weights[0, ..., 0, 0].unflatten(-1, taps).detach().double().numpy()

    return Sight(
        pixel,
        (cell[0], cell[1]),
        seen.rows.place[0].tolist(),
        seen.columns.place[0].tolist(),
        seen.counts[:, 0, 0].unflatten(0, taps).numpy(),
        squares(seen.weights[:, heads]),
        squares(seen.of_channels(channels)),
        squares(seen.filters(channels)),
    )


def times(sizes: Sequence[int]) -> str:
    """Write two sizes as people do."""
    return " x ".join(map(str, sizes))

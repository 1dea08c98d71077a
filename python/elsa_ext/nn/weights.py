"""What a local operator looks at: its weights for every output, the place of every tap, the filters of channels."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.local import neighbours
from ..ops.neighborhood_logits import neighborhood_logits
from .carafe import CARAFE
from .ddf import DDF
from .elsa import ELSA
from .filter_norm import normalise
from .involution import Involution
from .local_attention import LocalAttention
from .local_terms import Around, Tables, logits
from .neighborhood import NeighborhoodAttention, _fit, _pair
from .windows import fitting, padded, part_of, parts


class Taps(NamedTuple):
    """Where the taps of every output look along one axis of a map."""

    place: Tensor
    """(outputs, K); one that is negative, or not less than ``length``, is beyond the map."""
    counts: Tensor
    """(outputs, K), whether there is such a tap; else its weight is 0, and its filters are 0 too."""
    length: int
    """Of the map."""


class LocalWeights(NamedTuple):
    """The weights of a local operator, and where they look.

    Beyond the map stand zeros; in windows, which are padded, stand the values that the layer's ``qkv`` makes of zeros.
    """

    weights: Tensor
    """(B, heads, Kh·Kw, H, W), of outputs at (H, W), normalised, without dropout; taps are row-major."""
    rows: Taps
    columns: Taps
    mul: Tensor | None
    """The ghost matrix that they are multiplied by, (channels, Kh, Kw) or (B, channels, Kh, Kw), or None."""
    add: Tensor | None
    """The one that is added to them, likewise."""
    channels: int
    """Of the values; channel c is of head ``c // (channels / heads)``."""
    signed: bool
    """Whether a weight may be negative, as it is not after a softmax."""

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.weights.shape[1]

    @property
    def kernel_size(self) -> tuple[int, int]:
        """(Kh, Kw), which are less than those of the layer where the map has not so many pixels."""
        return self.rows.place.shape[1], self.columns.place.shape[1]

    def at(self, row: int, column: int) -> "LocalWeights":
        """Return the same of one output."""
        rows = Taps(self.rows.place[row : row + 1], self.rows.counts[row : row + 1], self.rows.length)
        columns = self.columns
        columns = Taps(columns.place[column : column + 1], columns.counts[column : column + 1], columns.length)
        weights = self.weights[..., row : row + 1, column : column + 1]
        return self._replace(weights=weights, rows=rows, columns=columns)

    @property
    def counts(self) -> Tensor:
        """Which taps there are, (Kh·Kw, H, W)."""
        both = self.rows.counts.T[:, None, :, None] & self.columns.counts.T[None, :, None, :]
        return both.flatten(0, 1)

    def of_channels(self, channels: Sequence[int]) -> Tensor:
        """Return the weights of the heads of ``channels``, (B, len(channels), Kh·Kw, H, W)."""
        return self.weights[:, [channel // (self.channels // self.heads) for channel in channels]]

    def filters(self, channels: Sequence[int]) -> Tensor:
        """Return what sums the values of ``channels``, ``mul · weights + add``: (B, len(channels), Kh·Kw, H, W)."""
        out = self.of_channels(channels)
        if self.mul is not None:
            out = out * self.mul[..., channels, :, :].flatten(-2)[..., None, None]
        if self.add is not None:
            out = out + self.add[..., channels, :, :].flatten(-2)[..., None, None]
        return out * self.counts


def attention_weights(layer: nn.Module, x: Tensor) -> LocalWeights:
    """Return the weights that a local operator makes of an input, and where they look.

    ``out[b,c,y,x] = Σ_t (mul[c,t] · weights[b,h(c),t,y,x] + add[c,t]) · value[b,c,rows.place[y,t],columns.place[x,t]]``
    is what the layer sums, before its last projection, if it has one.

    Args:
        layer: An `ELSA`, `NeighborhoodAttention`, `LocalAttention`, `DDF`, `Involution` or `CARAFE`.
        x: What the layer takes. A sequence is a map of one row.

    Raises:
        TypeError: ``layer`` is none of these, or of a class with a ``forward`` of its own.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.1.
    """
    for kind, made in _KINDS.items():
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            return made(layer, x)
    known = ", ".join(kind.__name__ for kind in _KINDS)
    raise TypeError(f"attention_weights: layer must be one of {known}, got {type(layer).__name__}")


def has_weights(layer: nn.Module) -> bool:
    """Tell whether `attention_weights` takes a layer."""
    return any(isinstance(layer, kind) and type(layer).forward is kind.forward for kind in _KINDS)


def _taps(
    length: int,
    kernel_size: int,
    dilation: int,
    border: str,
    window_stride: int = 1,
    causal: bool = False,
    stride: int = 1,
    device: torch.device | None = None,
) -> Taps:
    """Return where the taps of an axis look, over a border of the ops."""
    device = torch.device("cpu") if device is None else device
    found = neighbours(length, kernel_size, dilation, border, window_stride, causal, device, stride)
    place = found.source
    if found.inside is not None:  # the places that stand for zeros are within the map there
        output, tap = torch.arange(length // stride, device=device), torch.arange(kernel_size, device=device)
        place = output[:, None] * stride + (tap - kernel_size // 2) * dilation
    counts = torch.ones_like(place, dtype=torch.bool) if found.counts is None else found.counts
    return Taps(place, counts, length)


def _square(
    layer: Any, value: Tensor, weights: Tensor, mul: Tensor | None = None, add: Tensor | None = None, *, signed: bool
) -> LocalWeights:
    """Return weights (B, heads·K², H, W) over zeros, of a layer with one kernel size, dilation and stride."""
    rows, columns = (
        _taps(length, layer.kernel_size, layer.dilation, "zeros", stride=layer.stride, device=value.device)
        for length in value.shape[2:]
    )
    by_head = weights.unflatten(1, [-1, layer.kernel_size**2])
    return LocalWeights(by_head, rows, columns, mul, add, value.shape[1], signed)


def _of_elsa(layer: ELSA, x: Tensor) -> LocalWeights:
    query, key, value = torch.split(
        layer.pre_proj(x.permute(0, 3, 1, 2)), [layer.dim_qk, layer.dim_qk, layer.dim_v], dim=1
    )
    mul, add = layer._ghost_matrices()
    add = None if add is None else layer.gamma * add
    return _square(layer, value, layer._attention(query, key), mul, add, signed=False)


def _of_ddf(layer: DDF, x: Tensor) -> LocalWeights:
    of_channels = layer.channel_branch(x).unflatten(2, [layer.kernel_size, layer.kernel_size])
    of_pixels = layer.spatial_branch(x)[:, :, : x.shape[2] // layer.stride, : x.shape[3] // layer.stride]
    matrices = (of_channels, None) if layer.combine == "mul" else (None, of_channels)
    return _square(layer, x, of_pixels, *matrices, signed=True)


def _of_involution(layer: Involution, x: Tensor) -> LocalWeights:
    return _square(layer, x, layer.conv2(layer.conv1(layer.avgpool(x))), signed=True)


def _of_carafe(layer: CARAFE, x: Tensor) -> LocalWeights:
    encoded = layer.content_encoder(layer.channel_compressor(x))
    # The channels are groups, taps and the pixels that a pixel becomes.
    weights = F.pixel_shuffle(encoded, layer.scale_factor).unflatten(1, [layer.groups, -1]).softmax(2)
    rows, columns = (_of_finer(layer, length, x.device) for length in x.shape[2:])
    return LocalWeights(weights, rows, columns, None, None, layer.channels, False)


def _of_finer(layer: CARAFE, length: int, device: torch.device) -> Taps:
    """Return where the taps of the pixels look that the pixels of an axis become."""
    taps = _taps(length, layer.kernel_size, 1, "zeros", device=device)
    place, counts = (numbers.repeat_interleave(layer.scale_factor, 0) for numbers in (taps.place, taps.counts))
    return Taps(place, counts, length)


def _of_neighborhood(layer: NeighborhoodAttention, x: Tensor) -> LocalWeights:
    qkv = layer.qkv(x)
    bias: Tensor | None = layer.rpb
    if len(layer.kernel_size) == 1:
        qkv, bias = qkv.unsqueeze(1), None if bias is None else bias.unsqueeze(1)
    query, key, value = qkv.permute(0, 3, 1, 2).chunk(3, 1)
    size, dilation, step = (_pair(given, 1) for given in (layer.kernel_size, layer.dilation, layer.window_stride))
    causal = _pair([int(flag) for flag in layer.causal], 0)
    if layer.border == "shift":
        size, dilation, step, bias = _fit(list(value.shape[2:]), size, dilation, step, bias)
    terms = neighborhood_logits(
        query,
        key,
        bias,
        heads=layer.heads,
        kernel_size=size,
        dilation=dilation,
        scale=layer.scale,
        border=layer.border,
        window_stride=step,
        causal=causal,  # type: ignore[arg-type]
    )
    rows, columns = (
        _taps(length, size[axis], dilation[axis], layer.border, step[axis], bool(causal[axis]), device=x.device)
        for axis, length in enumerate(value.shape[2:])
    )
    weights = terms.unflatten(1, [layer.heads, -1]).softmax(2)
    return LocalWeights(weights, rows, columns, None, None, value.shape[1], False)


def _of_local(layer: LocalAttention, x: Tensor) -> LocalWeights:
    whole = padded(x, layer.kernel_size, layer.dilation) if layer.window else x
    qkv = layer.qkv(whole)
    tables = Tables(layer.r_key, layer.r_query, layer.r_bias, layer.ghost_mul, layer.ghost_add, layer.gain)
    around = Around(layer.kernel_size, layer.dilation, layer.border, layer.kernel_size if layer.window else [1, 1])
    if layer.hadamard is not None:
        query, key = qkv[..., : 2 * layer.dim_qk].permute(0, 3, 1, 2).chunk(2, 1)
        weights = layer.hadamard(query, key, layer.gain).unflatten(1, [layer.heads, -1])
    elif any(layer.shift):
        weights = _of_shifted_windows(layer, qkv, tables)
    else:
        if layer.border == "shift":
            tables, around = fitting(tables, around, whole.shape[1], whole.shape[2])
        weights = _of_terms(layer, qkv, tables, around)
    rows, columns = (
        _of_axis(layer, around, axis, x.shape[axis + 1], whole.shape[axis + 1], x.device) for axis in (0, 1)
    )
    height, width = x.shape[1:3]
    channels = layer.heads * layer.head_dim
    shown = weights[..., :height, :width]
    return LocalWeights(shown, rows, columns, tables.mul, tables.add, channels, layer.norm != "softmax")


def _of_terms(layer: LocalAttention, qkv: Tensor, tables: Tables, around: Around) -> Tensor:
    """Make the weights (B, heads, taps, H, W) where all windows are of one size."""
    pieces = qkv.chunk(1 + layer.has_query + layer.has_key, -1)
    query, key = pieces[0] if layer.has_query else None, pieces[-2] if layer.has_key else None
    terms = logits(query, key, tables, around, layer.heads, layer.scale, layer.products, pieces[-1])
    return normalise(terms, layer.norm, tables.gain).permute(0, 3, 4, 1, 2).expand(qkv.shape[0], -1, -1, -1, -1)


def _of_shifted_windows(layer: LocalAttention, qkv: Tensor, tables: Tables) -> Tensor:
    """Make the weights (B, heads, taps, H, W), with zeros for the taps that what is left of a window has not."""
    (rows, columns), around = layer.kernel_size, Around(layer.kernel_size, layer.dilation, "shift", layer.kernel_size)
    bands = []
    for top, bottom, first_row in parts(qkv.shape[1], rows, layer.shift[0]):
        band = []
        for left, right, first_column in parts(qkv.shape[2], columns, layer.shift[1]):
            size = [min(rows, bottom - top), min(columns, right - left)]
            own = part_of(tables, layer.kernel_size, size, [first_row, first_column])
            made = _of_terms(
                layer, qkv[:, top:bottom, left:right], own, around._replace(kernel_size=size, window_stride=size)
            )
            before, after = (first_column, columns - first_column - size[1]), (first_row, rows - first_row - size[0])
            band.append(F.pad(made.unflatten(2, size), [0, 0, 0, 0, *before, *after]).flatten(2, 3))
        bands.append(torch.cat(band, -1))
    return torch.cat(bands, -2)


def _of_axis(layer: LocalAttention, around: Around, axis: int, length: int, whole: int, device: torch.device) -> Taps:
    """Return where the taps look along an axis of a map that windows have made ``whole`` long."""
    size, shift = around.kernel_size[axis], layer.shift[axis]
    taps = _taps(whole, size, around.dilation[axis], around.border, around.window_stride[axis], device=device)
    if shift:
        output = torch.arange(whole, device=device)
        place = ((output - shift) // size * size + shift)[:, None] + torch.arange(size, device=device)
        taps = Taps(place, (place >= 0) & (place < whole), whole)
    return Taps(taps.place[:length], taps.counts[:length], length)


_KINDS: dict[type[nn.Module], Callable[[Any, Tensor], LocalWeights]] = {
    ELSA: _of_elsa,
    NeighborhoodAttention: _of_neighborhood,
    LocalAttention: _of_local,
    DDF: _of_ddf,
    Involution: _of_involution,
    CARAFE: _of_carafe,
}

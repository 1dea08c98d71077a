"""What the ops of local attention share: options, the neighbours that a border gives, the formula of logits."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from .checks import LARGEST, check_device, check_dtype, check_like, check_size, error, show

Pair: TypeAlias = int | Sequence[int]
Flags: TypeAlias = bool | Sequence[bool]

BORDERS = ("zeros", "mask", "circular", "shift")


def flags(causal: Flags) -> int | list[int]:
    """Return a flag for both axes, or for each, as the ops take it, 0 or 1: PyTorch cannot trace a list of bools."""
    if isinstance(causal, int):
        return int(causal)
    return [int(flag) if isinstance(flag, bool) else flag for flag in causal]


class Neighbours(NamedTuple):
    """One axis: where the K taps of every output are, as (length, K), and how far the first one is, as (length,)."""

    source: Tensor
    inside: Tensor | None
    """Which sources are in the map; the others stand for zeros. None means all."""
    counts: Tensor | None
    """Which taps count. None means all."""
    offset: Tensor
    """From the output to its first tap, in dilations."""


def neighbours(
    length: int,
    kernel_size: int,
    dilation: int,
    border: str,
    window_stride: int,
    causal: bool,
    device: torch.device,
    stride: int = 1,
) -> Neighbours:
    """Return the neighbours along an axis of the outputs, which lie ``stride`` apart."""
    output = torch.arange(length // stride, device=device) * stride
    tap = torch.arange(kernel_size, device=device)
    left, right = kernel_size // 2, kernel_size // 2 + kernel_size % 2 - 1
    if border == "shift":
        residue, place = output % dilation, output // dilation
        places = (length - residue + dilation - 1) // dilation
        window = place // window_stride * window_stride
        if causal:
            leader = torch.minimum(window + window_stride - 1, places - 1)
            start = (leader - kernel_size + 1).clamp(min=0)
        else:
            leader = torch.minimum(window + window_stride // 2, places - 1)
            start = torch.minimum(leader.clamp(min=left), places - 1 - right) - left
        source = (start[:, None] + tap) * dilation + residue[:, None]
        counts = start[:, None] + tap <= place[:, None] if causal else None
        return Neighbours(source, None, counts, start - place)
    offset = torch.full_like(output, -left)
    if border == "circular":
        # Step by step modulo the length: the dilation may be huge.
        source = (output[:, None] + (tap - left) * (dilation % length)) % length
        return Neighbours(source, None, None, offset)
    source = output[:, None] + (tap - left) * min(dilation, length)
    inside = (source >= 0) & (source < length)
    return Neighbours(source.clamp(0, length - 1), inside, inside if border == "mask" else None, offset)


def both_axes(like: Tensor, *, stride: Sequence[int] = (1, 1), **options: Any) -> tuple[Neighbours, Neighbours]:
    """Return the neighbours along both axes of the map ``like``."""
    y, x = (
        neighbours(
            like.shape[2 + axis],
            options["kernel_size"][axis],
            options["dilation"][axis],
            options["border"],
            options["window_stride"][axis],
            options["causal"][axis],
            like.device,
            stride[axis],
        )
        for axis in (0, 1)
    )
    return y, x


def gathered(tensor: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return the rows ``y`` and columns ``x``, both (length, K), of the last two dimensions, as (…, H, Kh, W, Kw)."""
    rows = tensor.index_select(-2, y.flatten()).index_select(-1, x.flatten())
    return rows.reshape(*tensor.shape[:-2], *y.shape, *x.shape)


def outer(y: Tensor | None, x: Tensor | None) -> Tensor | None:
    """Combine what both axes say of their taps, (H, Kh) and (W, Kw), to (H, Kh, W, Kw)."""
    if y is None:
        return x
    rows = y[:, :, None, None]
    return rows if x is None else rows & x


def neighbouring(tensor: Tensor, heads: int, y: Neighbours, x: Neighbours) -> Tensor:
    """Return the neighbours of every pixel of a map, (B, heads, C/heads, H, Kh, W, Kw), zero outside the map."""
    found = gathered(by_head(tensor, heads), y.source, x.source)
    inside = outer(y.inside, x.inside)
    return found if inside is None else found.where(inside, torch.zeros((), dtype=found.dtype, device=found.device))


def by_head(tensor: Tensor, heads: int) -> Tensor:
    """Return a map as (B, heads, C/heads, H, W)."""
    batch, channels, height, width = tensor.shape
    return tensor.reshape(batch, heads, channels // heads, height, width)


def accumulated(*tensors: Tensor | None) -> list[Any]:
    """Return 16-bit tensors in float32, in which the ops accumulate."""
    return [t.float() if t is not None and t.dtype.itemsize == 2 else t for t in tensors]


def logits_formula(
    query: Tensor, key: Tensor, bias: Tensor | None, y: Neighbours, x: Neighbours, *, heads: int, scale: float
) -> Tensor:
    """Return the logits as (B, heads, H, Kh, W, Kw); −∞ where a tap does not count."""
    products = by_head(query, heads)[..., :, None, :, None] * neighbouring(key, heads, y, x)
    logits = products.sum(2) * scale
    if bias is not None:
        logits = logits + spread_bias(bias, heads, y, x)
    counts = outer(y.counts, x.counts)
    return logits if counts is None else logits.masked_fill(~counts, -torch.inf)


def spread_bias(bias: Tensor, heads: int, y: Neighbours, x: Neighbours) -> Tensor:
    """Return the bias of every tap of every output, broadcast to (B, heads, H, Kh, W, Kw)."""
    (rows, columns), shape = (y.source.shape[1], x.source.shape[1]), bias.shape
    if is_relative(shape, heads, (rows, columns)):
        to_row = y.offset[:, None] + torch.arange(rows, device=bias.device) + rows - 1
        to_column = x.offset[:, None] + torch.arange(columns, device=bias.device) + columns - 1
        return gathered(bias, to_row, to_column)
    return bias.reshape(*shape[:-1], 1, rows, 1, columns)


def is_relative(shape: Sequence[int], heads: int, kernel_size: Sequence[int]) -> bool:
    """Tell whether a bias of ``shape`` has a number for every relative position, not for every tap."""
    relative = (heads, 2 * kernel_size[0] - 1, 2 * kernel_size[1] - 1)
    return len(shape) == 4 or (len(shape) == 3 and _ends_with(shape, relative))


def _ends_with(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Tell whether the last sizes of ``shape`` are ``size``, compared from the end: the first may be symbolic."""
    return len(shape) >= len(size) and all(a == b for a, b in zip(reversed(shape), reversed(size), strict=False))


def bias_rank(shape: Sequence[int], options: dict[str, Any]) -> int:
    """Return the number of dimensions that a bias of ``shape`` would have if all samples shared it."""
    return 3 if is_relative(shape, options["heads"], options["kernel_size"]) else 2


def check_local(
    op: str,
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    *,
    heads: int,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    border: str,
    window_stride: Sequence[int],
    causal: Sequence[int],
) -> None:
    """Check what all ops of local attention take."""
    check_dtype(op, "query", query)
    if query.dim() != 4:
        raise error(op, f"query must have 4 dimensions (B, C, H, W), got {query.dim()}")
    _, channels, height, width = query.shape
    if not (height > 0 and width > 0):
        raise error(op, f"query must have at least one row and one column, got {show(query.shape)}")
    check_like(op, "key", key, "query", query)
    check_size(op, "key", key, query.shape)
    if heads <= 0:
        raise error(op, f"heads must be positive, got {heads}")
    if channels % heads != 0:
        raise error(op, f"query has {channels} channels, not a multiple of the {heads} heads")
    check_neighbourhood(op, height, width, kernel_size, dilation, border, window_stride, causal)
    if heads * kernel_size[0] * kernel_size[1] * 4 > LARGEST:
        raise error(op, f"kernel_size {show(kernel_size)} has too many taps for {heads} heads")
    _check_bias(op, bias, query, heads, kernel_size)


def check_neighbourhood(
    op: str,
    height: int,
    width: int,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    border: str,
    window_stride: Sequence[int],
    causal: Sequence[int],
) -> None:
    """Check what outputs look at, along both axes of a map."""
    if border not in BORDERS:
        raise error(op, f'border must be "zeros", "mask", "circular" or "shift", got "{border}"')
    if not all(0 < size <= LARGEST for size in kernel_size):
        raise error(op, f"kernel_size must be from 1 to {LARGEST}, got {show(kernel_size)}")
    if not all(step > 0 for step in dilation):
        raise error(op, f"dilation must be positive, got {show(dilation)}")
    if not all(0 < step <= size for step, size in zip(window_stride, kernel_size, strict=True)):
        got = show(window_stride)
        raise error(op, f"window_stride must be from 1 to kernel_size = {show(kernel_size)}, got {got}")
    if not all(flag in (0, 1) for flag in causal):
        raise error(op, f"causal must be 0 or 1, got {show(causal)}")
    if border != "shift":
        if any(step != 1 for step in window_stride):
            raise error(op, f'window_stride {show(window_stride)} needs border "shift", got "{border}"')
        if any(causal):
            raise error(op, f'causal needs border "shift", got "{border}"')
    else:
        reach = [size * step for size, step in zip(kernel_size, dilation, strict=True)]
        for name, length, taken in (("height", height, reach[0]), ("width", width, reach[1])):
            if taken > length:
                expected = f'border "shift" needs kernel_size · dilation = {show(reach)} to fit in the map'
                raise error(op, f"{expected}, got {name} {length}")


def _check_bias(op: str, bias: Tensor | None, query: Tensor, heads: int, kernel_size: Sequence[int]) -> None:
    if bias is None:
        return
    rows, columns = kernel_size
    taps, relative = (heads, rows * columns), (heads, 2 * rows - 1, 2 * columns - 1)
    if not any(
        _ends_with(bias.shape, size)
        and (bias.dim() == len(size) or (bias.dim() == len(size) + 1 and bias.shape[0] == query.shape[0]))
        for size in (taps, relative)
    ):
        expected = f"(heads, K²) = {show(taps)} or (heads, 2K−1, 2K−1) = {show(relative)}, or one per sample"
        raise error(op, f"bias must have shape {expected}, got {show(bias.shape)}")
    if not (bias.dtype == torch.float32 and query.dtype.itemsize == 2):
        check_like(op, "bias", bias, "query", query)
    check_device(op, "bias", bias, "query", query)


def products(query: Sequence[int], channels: int, kernel_size: Sequence[int]) -> int:
    """Return output pixels × taps × channels."""
    batch, _, height, width = query
    return batch * height * width * kernel_size[0] * kernel_size[1] * channels

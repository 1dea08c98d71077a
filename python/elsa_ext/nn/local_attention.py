"""The family of local operators as one module: attention, convolution, dynamic filters, around pixels or in windows."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from ..ops.neighborhood_attention import neighborhood_attention
from .checks import per_axis, positive
from .filter_norm import normalise
from .hadamard import HadamardWeights
from .local_filters import static_filters
from .local_terms import Around, Tables, logits
from .spec import LocalSpec
from .windows import cropped, fitting, padded, part_of, parts

Sizes: TypeAlias = int | Sequence[int]

_NAME = "LocalAttention"  # in errors

# torch.fx records calls of them, instead of looking into tensors that it has not got.
torch.fx.wrap("cropped")
torch.fx.wrap("padded")


@torch.fx.wrap
def _check_input(x: Tensor, dim: int) -> None:
    if x.ndim != 4 or x.shape[-1] != dim:
        raise ValueError(f"LocalAttention: the input must have shape (B, H, W, {dim}), got {list(x.shape)}")


class Options(NamedTuple):
    """What makes weights of the terms: see `LocalAttention`."""

    has_query: bool
    has_key: bool
    products: bool
    norm: str
    heads: int
    scale: float


class LocalAttention(nn.Module):
    """Any local operator of the family, over channels-last maps.

    ``q, k, v = qkv(x)`` and
    ``out_i = proj(Σ_j (mul_j · Norm_j(scale · q_i·k_j + q_i·r^k_{j−i} + r^q_{j−i}·k_j + r^b_{j−i}) + add_j) · v_j)``,
    where j runs over the K×K pixels around pixel i, or over those of the window that it is in, and ``spec`` says which
    of the terms and matrices there are. The input is (B, H, W, dim), and so is the output.

    ====================================================  ==========================================
    window attention of Swin                              ``"qk+rb softmax window"``
    sliding-window attention, of NATTEN and of SASA       ``"qk+rb softmax neighborhood border=shift"``, ``"qk+qr …"``
    depthwise convolution                                 ``"rb none neighborhood heads=C"``
    dynamic filter                                        ``"qr none neighborhood"``
    ELSA                                                  ``"hadamard softmax neighborhood mul add"``
    ====================================================  ==========================================

    Nothing keeps a map of weights where softmax weights are of "qk" and "rb" alone, and there are no matrices and no
    ``attn_drop``; nor where they are of "rb" alone, the same for every sample.

    Parameters: ``qkv`` makes of q and k what the terms need, and v, in this order. ``r_key`` and ``r_query``, (heads,
    head_dim, Rh, Rw), are the r^k of "qr" and the r^q of "rk", and ``r_bias``, (heads, Rh, Rw), is r^b, all from the
    first offset to the last, key less query: (Rh, Rw) is (2·Kh − 1, 2·Kw − 1) where the taps of a pixel depend on its
    place, in windows and over the border "shift", and (Kh, Kw) elsewhere. Filter normalisation multiplies by ``gain``,
    (heads,). ``ghost_mul`` and ``ghost_add`` are (channels, Kh, Kw). The ``layers`` of ``hadamard`` are those of
    ``attn`` in `elsa_ext.nn.ELSA`. Last is ``proj``.

    Args:
        dim: Channels of the input and the output.
        spec: See `LocalSpec`.
        heads: Groups of channels that share their weights, from 1 to dim; None if ``spec`` says so.
        kernel_size: K, one number or (Kh, Kw), even ones too: side of the neighbourhood or window.
        dilation: Distance of neighbours, in pixels.
        shift: Rows and columns by which windows are moved down and to the right; K // 2 in every second block of Swin.
            What the edges of the map leave of a window is a window of its own. A map that the windows do not divide is
            padded with zeros below and to the right, which are attended to, as in Swin.
        head_dim: Channels of a head; None means ``dim // heads``, which must be exact.
        dim_qk: Of "hadamard", channels of query and of key: see `elsa_ext.nn.ELSA`.
        group_width: Of "hadamard": see `elsa_ext.nn.ELSA`.
        qkv_bias: Give ``qkv`` a bias.
        qk_scale: Scale of the products of query and key; None or 0 means ``head_dim ** -0.5``.
        attn_drop: Dropout probability of the weights; of those that all samples share, for all at once.
        proj_drop: Dropout probability of the output.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: There is no such operator, an argument is not what is said above, or an input is not (B, H, W, dim).

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.1.
    """

    r_key: nn.Parameter | None
    r_query: nn.Parameter | None
    r_bias: nn.Parameter | None
    gain: nn.Parameter | None
    ghost_mul: nn.Parameter | None
    ghost_add: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        spec: str | LocalSpec,
        *,
        heads: int | None = None,
        kernel_size: Sizes,
        dilation: Sizes = 1,
        shift: Sizes = 0,
        head_dim: int | None = None,
        dim_qk: int | None = None,
        group_width: int = 8,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = LocalSpec.parse(spec) if isinstance(spec, str) else spec
        self.spec = str(spec)
        self.dim = positive(_NAME, "dim", dim)
        self.heads = _heads(self.dim, spec, heads)
        if head_dim is None and self.dim % self.heads:
            raise ValueError(f"{_NAME}: heads must divide dim = {self.dim}, got {self.heads}")
        self.head_dim = positive(_NAME, "head_dim", self.dim // self.heads if head_dim is None else head_dim)
        self.kernel_size = [
            positive(_NAME, "kernel_size", size) for size in per_axis(_NAME, "kernel_size", kernel_size, 2)
        ]
        self.dilation = [positive(_NAME, "dilation", step) for step in per_axis(_NAME, "dilation", dilation, 2)]
        self.shift = [int(step) for step in per_axis(_NAME, "shift", shift, 2)]
        self.window = spec.region == "window"
        self.border = "shift" if self.window else spec.border or "zeros"
        self.norm = spec.norm
        self.scale = float(qk_scale or self.head_dim**-0.5)
        self.products = "qk" in spec.terms
        self.has_query, self.has_key = spec.has_query, spec.has_key
        _check_sizes(spec, self.kernel_size, self.dilation, self.shift)

        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = self.heads * self.head_dim
        offsets = [2 * size - 1 if spec.moves else size for size in self.kernel_size]
        self.hadamard, self.dim_qk = None, channels
        if spec.hadamard:
            dim_qk, group_width = dim_qk or self.dim // 3 * 2, positive(_NAME, "group_width", group_width)
            self.hadamard = HadamardWeights(
                positive(_NAME, "dim_qk", dim_qk),
                self.heads,
                self.kernel_size[0],
                self.dilation[0],
                group_width,
                self.scale,
                self.norm,
                **factory,
            )
            self.dim_qk = self.hadamard.dim_qk
        self.qkv = nn.Linear(
            self.dim, self.dim_qk * (spec.has_query + spec.has_key) + channels, bias=qkv_bias, **factory
        )
        shapes = {
            "r_key": (self.heads, self.head_dim, *offsets) if "qr" in spec.terms else None,
            "r_query": (self.heads, self.head_dim, *offsets) if "rk" in spec.terms else None,
            "r_bias": (self.heads, *offsets) if "rb" in spec.terms else None,
            "gain": (self.heads,) if spec.norm == "filter" else None,
            "ghost_mul": (channels, *self.kernel_size) if spec.mul else None,
            "ghost_add": (channels, *self.kernel_size) if spec.add else None,
        }
        for name, shape in shapes.items():
            self.register_parameter(name, None if shape is None else nn.Parameter(torch.empty(shape, **factory)))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(channels, self.dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what is learned between pixels anew.

        For a softmax the tables are of a truncated normal distribution of deviation 0.02, else of a normal one that
        keeps the scale of the values; ``ghost_mul`` and ``ghost_add`` are as in `elsa_ext.nn.ELSA`, ``gain`` is 1 / K.
        """
        taps = self.kernel_size[0] * self.kernel_size[1]
        for table, summed in ((self.r_key, self.head_dim), (self.r_query, self.head_dim), (self.r_bias, 1)):
            if table is not None and self.norm == "softmax":
                nn.init.trunc_normal_(table, std=0.02)
            elif table is not None:
                nn.init.normal_(table, std=(summed * taps) ** -0.5)
        if self.gain is not None:
            nn.init.constant_(self.gain, taps**-0.5)
        if self.ghost_mul is not None:
            nn.init.normal_(self.ghost_mul)
        if self.ghost_add is not None:
            nn.init.trunc_normal_(self.ghost_add, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H, W, dim)."""
        _check_input(x, self.dim)
        whole = padded(x, self.kernel_size, self.dilation) if self.window else x
        qkv = self.qkv(whole)
        tables = Tables(self.r_key, self.r_query, self.r_bias, self.ghost_mul, self.ghost_add, self.gain)
        around = Around(self.kernel_size, self.dilation, self.border, self.kernel_size if self.window else [1, 1])
        dropout = self.attn_drop.p if self.training else 0.0
        if self.hadamard is not None:
            query, key, value = torch.split(qkv, [self.dim_qk, self.dim_qk, self.heads * self.head_dim], dim=-1)
            weights = self.hadamard(query.permute(0, 3, 1, 2), key.permute(0, 3, 1, 2), self.gain)
            out = _aggregate(value, weights, tables, around, dropout)
        else:
            options = Options(self.has_query, self.has_key, self.products, self.norm, self.heads, self.scale)
            out = _attend(qkv, tables, around, options, self.shift, dropout)
        if self.window:
            out = cropped(out, x)
        out = self.proj_drop(self.proj(out))
        return out

    def extra_repr(self) -> str:
        """Show the spec, and the settings that the submodules do not."""
        names = ("dim", "heads", "head_dim", "kernel_size", "dilation", "scale") + ("shift",) * self.window
        return f"{self.spec!r}, " + ", ".join(f"{name}={getattr(self, name)}" for name in names)


def _heads(dim: int, spec: LocalSpec, given: int | None) -> int:
    """Return the number of heads, of the spec or of the argument."""
    of_spec = dim if spec.heads == "C" else spec.heads
    if given is None and of_spec is None:
        raise ValueError(f"{_NAME}: heads must be given, by the argument or in the spec, {spec}")
    if given is not None and of_spec is not None and given != of_spec:
        raise ValueError(f"{_NAME}: heads must be {of_spec}, as in the spec, {spec}, got {given}")
    return positive(_NAME, "heads", of_spec if given is None else given)


def _check_sizes(spec: LocalSpec, kernel_size: list[int], dilation: list[int], shift: list[int]) -> None:
    """Raise if the operator is not there for these sizes."""
    why = None
    if any(shift) and spec.region != "window":
        why = f'shift is of windows, got {shift} with "{spec}"'
    elif any(not 0 <= step < size for step, size in zip(shift, kernel_size, strict=True)):
        why = f"shift must be from 0 to less than kernel_size = {kernel_size}, got {shift}"
    elif any(shift) and any(step > 1 for step in dilation):
        why = f"shift needs a dilation of 1: windows that reach between each other have no edges, got {dilation}"
    elif spec.hadamard and (kernel_size[0] != kernel_size[1] or kernel_size[0] % 2 == 0 or dilation[0] != dilation[1]):
        why = f"hadamard needs one odd kernel_size and one dilation for both axes, got {kernel_size} and {dilation}"
    elif spec.norm == "filter" and _fewest_taps(kernel_size, shift) < 2:
        why = f"the norm filter needs 2 taps or more, got a kernel_size of {kernel_size} and a shift of {shift}"
    if why:
        raise ValueError(f"{_NAME}: {why}")


def _fewest_taps(kernel_size: list[int], shift: list[int]) -> int:
    """Return the taps of the smallest window at the edges."""
    rows, columns = (min(step, size - step) or size for size, step in zip(kernel_size, shift, strict=True))
    return rows * columns


@torch.fx.wrap
def _attend(qkv: Tensor, tables: Tables, around: Around, options: Options, shift: list[int], dropout: float) -> Tensor:
    """Map (B, H, W, channels of qkv) to (B, H, W, C)."""
    height, width = qkv.shape[1], qkv.shape[2]
    if around.border == "shift":
        tables, around = fitting(tables, around, height, width)
    if shift[0] == 0 and shift[1] == 0:
        return _attend_alike(qkv, tables, around, options, dropout)
    rows: list[Tensor] = []
    for top, bottom, first_row in parts(height, around.kernel_size[0], shift[0]):
        row: list[Tensor] = []
        for left, right, first_column in parts(width, around.kernel_size[1], shift[1]):
            size = [min(around.kernel_size[0], bottom - top), min(around.kernel_size[1], right - left)]
            row.append(
                _attend_alike(
                    qkv[:, top:bottom, left:right],
                    part_of(tables, around.kernel_size, size, [first_row, first_column]),
                    Around(size, around.dilation, around.border, size),
                    options,
                    dropout,
                )
            )
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)


def _attend_alike(qkv: Tensor, tables: Tables, around: Around, options: Options, dropout: float) -> Tensor:
    """Do it where all windows are of one size."""
    query: Tensor | None = None
    key: Tensor | None = None
    pieces = torch.chunk(qkv, 1 + int(options.has_query) + int(options.has_key), dim=-1)
    value = pieces[-1]
    if options.has_query:
        query = pieces[0]
    if options.has_key:
        key = pieces[-2]
    if query is None and key is None:
        return static_filters(value, tables, around, options.norm, options.heads, dropout)
    if _is_fused(tables, options, dropout) and query is not None and key is not None:
        return _fused(query, key, value, tables, around, options)
    terms = logits(query, key, tables, around, options.heads, options.scale, options.products, value)
    weights = normalise(terms, options.norm, tables.gain).flatten(3).permute(0, 3, 1, 2)
    return _aggregate(value, weights, tables, around, dropout)


def _is_fused(tables: Tables, options: Options, dropout: float) -> bool:
    """Tell whether `elsa_ext.neighborhood_attention` does it all."""
    more = tables.key is not None or tables.query is not None or tables.mul is not None or tables.add is not None
    return options.products and options.norm == "softmax" and not more and dropout == 0.0


def _fused(query: Tensor, key: Tensor, value: Tensor, tables: Tables, around: Around, options: Options) -> Tensor:
    bias = tables.bias
    if bias is not None and around.border != "shift":
        bias = bias.flatten(1)  # one for every tap
    out: Tensor = neighborhood_attention(
        query.permute(0, 3, 1, 2),
        key.permute(0, 3, 1, 2),
        value.permute(0, 3, 1, 2),
        bias,
        heads=options.heads,
        kernel_size=around.kernel_size,
        dilation=around.dilation,
        scale=options.scale,
        border=around.border,
        window_stride=around.window_stride,
    )
    return out.permute(0, 2, 3, 1)


@torch.fx.wrap
def _aggregate(value: Tensor, weights: Tensor, tables: Tables, around: Around, dropout: float) -> Tensor:
    """Sum the values (B, H, W, C) under the weights (B, heads·taps, H, W) and the ghost matrices."""
    out: Tensor = ghost_head(
        value.permute(0, 3, 1, 2),
        F.dropout(weights, dropout),
        tables.mul,
        tables.add,
        kernel_size=around.kernel_size,
        dilation=around.dilation,
        border=around.border,
        window_stride=around.window_stride,
    )
    return out.permute(0, 2, 3, 1)

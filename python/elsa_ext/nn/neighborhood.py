"""Neighborhood attention and the transformer block around it, with the parameter names of NATTEN."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from ..ops.local import BORDERS
from ..ops.neighborhood_attention import neighborhood_attention
from ..ops.neighborhood_logits import neighborhood_logits
from .block import Block
from .checks import per_axis, positive

Sizes: TypeAlias = int | Sequence[int]
Flags: TypeAlias = bool | Sequence[bool]

_NAME = "NeighborhoodAttention"  # in errors


@torch.fx.wrap
def _check_input(x: Tensor, dim: int, axes: int) -> None:
    if x.ndim != axes + 2 or x.shape[-1] != dim:
        expected = f"(B, L, {dim})" if axes == 1 else f"(B, H, W, {dim})"
        raise ValueError(f"NeighborhoodAttention: the input must have shape {expected}, got {list(x.shape)}")


class NeighborhoodAttention(nn.Module):
    """Attention of every pixel to its neighbourhood, over channels-last maps or sequences.

    ``q, k, v = qkv(x)`` and ``out = proj(Σ_t softmax_t(scale · q·k_t + rpb_t) · v_t)``, where t runs over the
    neighbours of a pixel: see `elsa_ext.neighborhood_logits` for which those are. The input is (B, H, W, dim), or
    (B, L, dim) if ``kernel_size`` is a tuple of one number; so is the output.

    Query, key and value are views of the output of ``qkv``; no attention map is kept in memory, except in training
    with ``attn_drop``. With the border "shift", the neighbourhood is as wide as the map at most: where a map is smaller
    than ``kernel_size · dilation``, every pixel attends to what there is, with the same bias for the same distance.

    The parameters are those of NATTEN's modules: ``qkv``, ``proj``, and ``rpb`` of shape (heads, 2·Kh − 1, 2·Kw − 1) or
    (heads, 2·K − 1), the bias for every relative position, key less query, from −(K − 1) to K − 1; or None.

    Args:
        dim: Channels of the input and the output.
        heads: Attention heads.
        kernel_size: K, one number or (Kh, Kw), even ones too; (K,) for sequences.
        head_dim: Channels of a head; None means ``dim // heads``, which must be exact.
        dilation: Distance of neighbours, in pixels; one number or one for each axis, as what follows.
        window_stride: How many outputs share a window, 1 to K; K means the windows of Swin. With "shift" alone.
        causal: Attend to nothing after the output. With "shift" alone.
        qkv_bias: Give ``qkv`` a bias.
        qk_scale: Scale of the products of query and key; None or 0 means ``head_dim ** -0.5``.
        rel_pos_bias: Learn ``rpb``.
        attn_drop: Dropout probability of the attention.
        proj_drop: Dropout probability of the output.
        border: "shift" as in NATTEN, "zeros", "mask" or "circular".
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: An argument is not what is said above, or an input is not (B, H, W, dim) or (B, L, dim).

    Source: Hassani et al., "Neighborhood Attention Transformer", arXiv 2204.07143.
    """

    rpb: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: Sizes,
        *,
        head_dim: int | None = None,
        dilation: Sizes = 1,
        window_stride: Sizes = 1,
        causal: Flags = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        rel_pos_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        border: str = "shift",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        axes = 1 if isinstance(kernel_size, Sequence) and len(kernel_size) == 1 else 2
        self.dim, self.heads = positive(_NAME, "dim", dim), positive(_NAME, "heads", heads)
        if head_dim is None and self.dim % self.heads:
            raise ValueError(f"{_NAME}: heads must divide dim = {self.dim}, got {self.heads}")
        self.head_dim = positive(_NAME, "head_dim", self.dim // self.heads if head_dim is None else head_dim)
        self.kernel_size = _sizes("kernel_size", kernel_size, axes)
        self.dilation = _sizes("dilation", dilation, axes)
        self.window_stride = _sizes("window_stride", window_stride, axes)
        self.causal = [bool(flag) for flag in per_axis(_NAME, "causal", causal, axes)]
        self.border = border
        self._check_border()
        self.scale = float(qk_scale or self.head_dim**-0.5)

        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        channels = self.heads * self.head_dim
        self.qkv = nn.Linear(self.dim, 3 * channels, bias=qkv_bias, **factory)
        self.register_parameter("rpb", None)
        if rel_pos_bias:
            positions = [2 * size - 1 for size in self.kernel_size]
            self.rpb = nn.Parameter(torch.empty(self.heads, *positions, **factory))
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(channels, self.dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_parameters()

    def _check_border(self) -> None:
        if self.border not in BORDERS:
            raise ValueError(f'{_NAME}: border must be "zeros", "mask", "circular" or "shift", got {self.border!r}')
        if any(step > size for step, size in zip(self.window_stride, self.kernel_size, strict=True)):
            expected = f"window_stride must be from 1 to kernel_size = {self.kernel_size}"
            raise ValueError(f"{_NAME}: {expected}, got {self.window_stride}")
        if self.border != "shift" and (any(self.causal) or any(step > 1 for step in self.window_stride)):
            raise ValueError(f'{_NAME}: window_stride and causal need border "shift", got "{self.border}"')

    def reset_parameters(self) -> None:
        """Draw ``rpb`` anew from a truncated normal distribution of deviation 0.02."""
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H, W, dim), or (B, L, dim) to (B, L, dim)."""
        return self._forward(x, self.kernel_size, self.dilation, self.window_stride, self.causal)

    def _forward(
        self, x: Tensor, kernel_size: list[int], dilation: list[int], window_stride: list[int], causal: list[bool]
    ) -> Tensor:
        """Compute `forward`, with sizes that a subclass may have under other names."""
        axes = len(kernel_size)
        _check_input(x, self.dim, axes)
        qkv = self.qkv(x)
        rpb = self.rpb  # TorchScript narrows the type of a variable alone
        bias: Tensor | None = rpb
        if axes == 1:  # a map of one row
            qkv = qkv.unsqueeze(1)
            bias = rpb.unsqueeze(1) if rpb is not None else None
        out = _attend(
            qkv.permute(0, 3, 1, 2),
            bias,
            self.heads,
            kernel_size,
            dilation,
            self.scale,
            self.border,
            window_stride,
            causal,
            self.attn_drop.p if self.training else 0.0,
        ).permute(0, 2, 3, 1)
        if axes == 1:
            out = out.squeeze(1)
        out = self.proj_drop(self.proj(out))
        return out

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("dim", "heads", "kernel_size", "dilation", "scale", "border", "window_stride", "causal")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names) + f", rel_pos_bias={self.rpb is not None}"


class NeighborhoodAttentionBlock(Block):
    """Transformer block of neighborhood attention and an MLP, (B, H, W, dim) in and out, or (B, L, dim).

    ``x = x + drop_path(attn(norm1(x)))``, then ``x + drop_path(mlp(norm2(x)))``.

    Args:
        dim: Channels.
        heads: Attention heads.
        kernel_size: See `NeighborhoodAttention`.
        mlp_ratio: Hidden channels of the MLP, as a multiple of ``dim``.
        drop: Dropout probability of the MLP.
        drop_path: Probability that a sample skips a branch in training.
        act_layer: Makes the activation of the MLP.
        norm_layer: Makes a normalisation, given ``dim``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
        **attention: The other arguments of `NeighborhoodAttention`.

    Raises:
        ValueError: An argument is not what `NeighborhoodAttention` takes.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: Sizes,
        *,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **attention: Any,
    ) -> None:
        attn = NeighborhoodAttention(dim, heads, kernel_size, device=device, dtype=dtype, **attention)
        super().__init__(dim, attn, mlp_ratio, drop, drop_path, act_layer, norm_layer, device, dtype)


def _sizes(name: str, given: Sizes, axes: int) -> list[int]:
    return [positive(_NAME, name, size) for size in per_axis(_NAME, name, given, axes)]


@torch.fx.wrap
def _attend(
    qkv: Tensor,
    bias: Tensor | None,
    heads: int,
    kernel_size: list[int],
    dilation: list[int],
    scale: float,
    border: str,
    window_stride: list[int],
    causal: list[bool],
    dropout: float,
) -> Tensor:
    """Attend over a map of queries, keys and values, (B, 3·C, H, W); sizes are of one axis or of both."""
    query, key, value = torch.chunk(qkv, 3, dim=1)
    kernel_size, dilation, window_stride = _pair(kernel_size, 1), _pair(dilation, 1), _pair(window_stride, 1)
    flags = _pair([int(flag) for flag in causal], 0)
    if border == "shift":
        kernel_size, dilation, window_stride, bias = _fit(
            [qkv.shape[2], qkv.shape[3]], kernel_size, dilation, window_stride, bias
        )
    if dropout == 0.0:
        out: Tensor = neighborhood_attention(
            query,
            key,
            value,
            bias,
            heads=heads,
            kernel_size=kernel_size,
            dilation=dilation,
            scale=scale,
            border=border,
            window_stride=window_stride,
            causal=flags,  # type: ignore[arg-type]
        )
        return out
    logits: Tensor = neighborhood_logits(
        query,
        key,
        bias,
        heads=heads,
        kernel_size=kernel_size,
        dilation=dilation,
        scale=scale,
        border=border,
        window_stride=window_stride,
        causal=flags,  # type: ignore[arg-type]
    )
    attn = logits.unflatten(1, [heads, kernel_size[0] * kernel_size[1]]).softmax(2).flatten(1, 2)
    dropped: Tensor = ghost_head(
        value,
        F.dropout(attn, dropout),
        kernel_size=kernel_size,
        dilation=dilation,
        border=border,
        window_stride=window_stride,
        causal=flags,  # type: ignore[arg-type]
    )
    return dropped


def _pair(sizes: list[int], of_a_row: int) -> list[int]:
    """Return sizes of both axes: a sequence is a map of one row."""
    return [of_a_row] * (2 - len(sizes)) + sizes


def _fit(
    map_size: list[int],
    kernel_size: list[int],
    dilation: list[int],
    window_stride: list[int],
    bias: Tensor | None,
) -> tuple[list[int], list[int], list[int], Tensor | None]:
    """Make the neighbourhood fit in the map: fewer taps along an axis that is too short, and their part of the bias."""
    kernel_size, dilation, window_stride = list(kernel_size), list(dilation), list(window_stride)
    for axis, length in enumerate(map_size):
        taps = kernel_size[axis]
        if 0 < length < taps * dilation[axis]:  # of an empty map the op says that it has no row
            dilation[axis] = min(dilation[axis], length)
            kernel_size[axis] = length // dilation[axis]
            window_stride[axis] = min(window_stride[axis], kernel_size[axis])
            if bias is not None:
                bias = bias.narrow(axis + 1, taps - kernel_size[axis], 2 * kernel_size[axis] - 1)
    return kernel_size, dilation, window_stride, bias

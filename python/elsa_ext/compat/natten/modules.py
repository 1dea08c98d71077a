"""The modules of natten, with the constructor arguments of 0.14 to 0.21."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import NeighborhoodAttention
from .absent import absent
from .layouts import sizes


class _Module(NeighborhoodAttention):
    """What both have in common."""

    axes: int

    def __init__(
        self,
        dim: int = 0,
        num_heads: int = 0,
        kernel_size: int | Sequence[int] = 0,
        *ambiguous: Any,
        embed_dim: int = 0,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] | None = 1,
        is_causal: bool | Sequence[bool] = False,
        rel_pos_bias: bool = False,
        bias: bool = False,
        use_experimental_ops: bool = False,
        **options: Any,
    ) -> None:
        if ambiguous:
            raise TypeError(
                f"elsa_ext.compat.natten: {type(self).__name__} takes what follows kernel_size by name: it is dilation "
                "in natten 0.14 and 0.17, and stride in 0.21; install(version) takes it by position"
            )
        super().__init__(
            dim or embed_dim,
            num_heads,
            sizes(kernel_size, self.axes),
            window_stride=stride,
            dilation=dilation or 1,
            causal=is_causal,
            rel_pos_bias=rel_pos_bias or bias,
            **options,
        )
        self.num_heads = self.heads

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, …, dim) to (B, …, dim); zeros fill up what is smaller than a neighbourhood, as in natten 0.14."""
        length = x.shape[1:-1]
        missing = [max(0, k * d - n) for k, d, n in zip(self.kernel_size, self.dilation, length, strict=False)]
        if not any(missing):
            return super().forward(x)
        padding = [0, 0] + [pad for more in reversed(missing) for pad in (0, more)]
        out = super().forward(F.pad(x, padding))
        for axis, size in enumerate(length):
            out = out.narrow(axis + 1, 0, size)
        return out


class NeighborhoodAttention1D(_Module):
    """Neighborhood attention of sequences, (B, L, dim) in and out, as natten's module of this name.

    Args:
        dim: Channels of the input and the output.
        num_heads: Attention heads.
        kernel_size: K, a number or a tuple of one, as the other sizes.
        *ambiguous: None: natten 0.17 takes ``dilation`` here, 0.21 takes ``stride``. `install` decides by its version.
        embed_dim: Name of ``dim`` in natten 0.21.
        stride: How many outputs share a window.
        dilation: Distance of neighbours.
        is_causal: Attend to nothing behind the output.
        rel_pos_bias: Learn ``rpb``, (heads, 2·K − 1).
        bias: Name of ``rel_pos_bias`` in natten 0.14.
        use_experimental_ops: Does nothing.
        **options: ``qkv_bias``, ``qk_scale``, ``attn_drop``, ``proj_drop``, as of `elsa_ext.nn.NeighborhoodAttention`.

    Raises:
        TypeError: A position or a name is not known.
        ValueError: A size is not what `elsa_ext.nn.NeighborhoodAttention` takes.
    """

    axes = 1


class NeighborhoodAttention2D(_Module):
    """Neighborhood attention of maps, (B, H, W, dim) in and out, as natten's module of this name.

    Args:
        dim: Channels of the input and the output.
        num_heads: Attention heads.
        kernel_size: K or (Kh, Kw), as the other sizes.
        *ambiguous: See `NeighborhoodAttention1D`, and so what follows; ``rpb`` is (heads, 2·Kh − 1, 2·Kw − 1).
        embed_dim: Name of ``dim`` in natten 0.21.
        stride: How many outputs share a window.
        dilation: Distance of neighbours.
        is_causal: Attend to nothing behind the output.
        rel_pos_bias: Learn ``rpb``.
        bias: Name of ``rel_pos_bias`` in natten 0.14.
        use_experimental_ops: Does nothing.
        **options: See `NeighborhoodAttention1D`.

    Raises:
        TypeError: A position or a name is not known.
        ValueError: A size is not what `elsa_ext.nn.NeighborhoodAttention` takes.
    """

    axes = 2


class NeighborhoodAttention3D(nn.Module):
    """Raise an error: elsa_ext has no 3-D."""

    def __init__(self, *args: Any, **options: Any) -> None:
        absent("NeighborhoodAttention3D", "3-D")()

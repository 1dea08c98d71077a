"""The modules of natten, with the constructor arguments and attributes of 0.14 to 0.21."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn import NeighborhoodAttention
from .absent import PLACE, absent
from .checks import sizes


class _Module(NeighborhoodAttention):
    """What both have in common."""

    axes: int
    kernel_size: Any
    dilation: Any

    def __init__(
        self,
        dim: int = 0,
        num_heads: int = 0,
        kernel_size: int | Sequence[int] = 0,
        *ambiguous: Any,
        embed_dim: int = 0,
        stride: int | Sequence[int] | None = 1,
        dilation: int | Sequence[int] | None = 1,
        is_causal: bool | Sequence[bool] | None = False,
        rel_pos_bias: bool = False,
        bias: bool = False,
        use_experimental_ops: bool = False,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        if ambiguous:
            raise TypeError(
                f"{PLACE}: {name} takes what follows kernel_size by name: it is dilation "
                "in natten 0.14 and 0.17, and stride in 0.21; install(version) takes it by position"
            )
        super().__init__(
            dim or embed_dim,
            num_heads,
            sizes(name, "kernel_size", kernel_size, self.axes),
            window_stride=1 if stride is None else stride,
            dilation=1 if dilation is None else dilation,
            causal=False if is_causal is None else is_causal,
            rel_pos_bias=rel_pos_bias or bias,
            **options,
        )
        # Under natten's names, for classes that derive from this one.
        self.num_heads, self.embed_dim, self.na_dim = self.heads, self.dim, self.axes
        self.kernel_size, self.dilation = tuple(self.kernel_size), tuple(self.dilation)
        self.stride, self.is_causal = tuple(self.window_stride), tuple(self.causal)
        self.attn_drop_rate, self.use_experimental_ops = self.attn_drop.p, use_experimental_ops

    def use_numbers(self) -> None:
        """Have one number for all axes in the place of tuples, and their product, as natten 0.14 has."""
        if len(set(self.kernel_size)) == len(set(self.dilation)) == 1:
            self.kernel_size, self.dilation = self.kernel_size[0], self.dilation[0]
            self.window_size = self.kernel_size * self.dilation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, …, dim) to (B, …, dim); zeros fill up what is smaller than a neighbourhood, as in natten 0.14."""
        name = type(self).__name__
        kernel_size = sizes(name, "kernel_size", self.kernel_size, self.axes)
        dilation = sizes(name, "dilation", self.dilation, self.axes)
        length = x.shape[1:-1]
        missing = [max(0, k * d - n) for k, d, n in zip(kernel_size, dilation, length, strict=False)]
        padding = [0, 0] + [pad for more in reversed(missing) for pad in (0, more)]
        out = self._forward(
            F.pad(x, padding) if any(missing) else x, kernel_size, dilation, list(self.stride), list(self.is_causal)
        )
        if any(missing):
            for axis, size in enumerate(length):
                out = out.narrow(axis + 1, 0, size)
        return out

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("head_dim", "num_heads", "kernel_size", "stride", "dilation", "is_causal")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names) + f", has_bias={self.rpb is not None}"


class NeighborhoodAttention1D(_Module):
    """Neighborhood attention of sequences, (B, L, dim) in and out, as natten's module of this name.

    Args:
        dim: Channels of the input and the output.
        num_heads: Attention heads.
        kernel_size: K, a number or a tuple of one, as the other sizes.
        *ambiguous: None: natten 0.17 takes ``dilation`` here, 0.21 takes ``stride``. ``install`` decides which.
        embed_dim: Name of ``dim`` in natten 0.21.
        stride: How many outputs share a window.
        dilation: Distance of neighbours.
        is_causal: Attend to nothing after the output.
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
        is_causal: Attend to nothing after the output.
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

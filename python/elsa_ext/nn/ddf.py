"""Decoupled dynamic filters, which are a filter of every pixel under one of every channel, and upsampling by them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from .checks import positive
from .filter_norm import filter_norm

# torch.fx records calls of them, instead of looking into tensors that it has not got.
torch.fx.wrap("filter_norm")
torch.fx.wrap("ghost_head")


class SpatialFilterNorm(nn.Module):
    """Filter normalisation of the filters of pixels, (B, K², H, W), times ``std``, which is not learned."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, filters: Tensor) -> Tensor:
        """Normalise over the channels."""
        return filter_norm(filters.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.std


class ChannelFilterNorm(nn.Module):
    """Filter normalisation of the filters of channels (B, C·K², 1, 1) to (B, C, K²) times a learned ``std`` (C·K²,)."""

    def __init__(self, channels: int, taps: int, std: float, **factory: Any) -> None:
        super().__init__()
        self.channels, self.deviation = channels, std
        self.std = nn.Parameter(torch.empty(channels * taps, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw ``std`` anew from a normal distribution."""
        nn.init.normal_(self.std, std=self.deviation)

    def forward(self, filters: Tensor) -> Tensor:
        """Normalise over the taps."""
        by_channel = filters.flatten(1).unflatten(1, [self.channels, -1])
        return filter_norm(by_channel) * self.std.view(self.channels, -1)


class DDF(nn.Module):
    """A decoupled dynamic filter in the place of a convolution: (B, channels, H, W) in any memory format.

    ``out[b,c,y,x] = Σ_ij F[b,c,i,j,y,x] · x[b,c,s·y+(i−r)·d,s·x+(j−r)·d]``, zeros around the map, and F the product
    or the sum of a filter of the pixel, ``FilterNorm(Conv1x1(x))``, and one of the channel,
    ``FilterNorm(FC(ReLU(FC(mean(x)))))``. The output is (B, channels, H // stride, W // stride). The parameters have
    the names and shapes of the official code.

    Args:
        channels: Channels of the input and the output.
        kernel_size: K, odd.
        stride: Distance of output pixels.
        dilation: Distance of neighbours.
        se_ratio: Hidden channels of the filters of channels, as a part of ``channels``.
        combine: "mul" or "add".
        nonlinearity: What follows: the filters are scaled by its ``nn.init.calculate_gain``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: An argument is not what is said above.

    Source: Zhou et al., "Decoupled Dynamic Filter Networks", arXiv 2104.14107.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        *,
        se_ratio: float = 0.2,
        combine: str = "mul",
        nonlinearity: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        channels, kernel_size = positive("DDF", "channels", channels), positive("DDF", "kernel_size", kernel_size)
        if kernel_size % 2 == 0 or kernel_size == 1:
            raise ValueError(f"DDF: kernel_size must be odd and more than 1, got {kernel_size}")
        if combine not in ("mul", "add"):
            raise ValueError(f'DDF: combine must be "mul" or "add", got {combine!r}')
        if int(channels * se_ratio) < 1:
            raise ValueError(f"DDF: se_ratio must leave a channel of {channels}, got {se_ratio}")
        self.channels, self.kernel_size, self.combine = channels, kernel_size, combine
        self.stride, self.dilation = positive("DDF", "stride", stride), positive("DDF", "dilation", dilation)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden, taps = int(channels * se_ratio), kernel_size**2
        std = nn.init.calculate_gain(nonlinearity) / kernel_size  # type: ignore[arg-type]
        self.spatial_branch = nn.Sequential(
            nn.Conv2d(channels, taps, 1, stride=self.stride, **factory), SpatialFilterNorm(std)
        )
        self.channel_branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1, **factory),
            nn.ReLU(),
            nn.Conv2d(hidden, channels * taps, 1, **factory),
            ChannelFilterNorm(channels, taps, std, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, channels, H // stride, W // stride)."""
        of_channels = self.channel_branch(x).unflatten(2, [self.kernel_size, self.kernel_size])
        # The convolution rounds the size of its output up.
        of_pixels = self.spatial_branch(x)[:, :, : x.shape[2] // self.stride, : x.shape[3] // self.stride]
        multiplied = self.combine == "mul"
        out: Tensor = ghost_head(
            x,
            of_pixels,
            of_channels if multiplied else None,
            None if multiplied else of_channels,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            stride=self.stride,
        )
        return out

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("channels", "kernel_size", "stride", "dilation", "combine")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class DDFUp(nn.Module):
    """Upsampling by decoupled dynamic filters: one `DDF` for each of the pixels that a pixel becomes.

    ``out[b,c,f·y+p,f·x+q] = DDF_pq(x)[b,c,y,x]``, with (B, channels, H, W) in and (B, channels, f·H, f·W) out.

    Args:
        channels: Channels of the input and the output.
        kernel_size: K, odd.
        scale_factor: f.
        dilation: See `DDF`, as what follows.
        se_ratio: See `DDF`.
        combine: See `DDF`.
        nonlinearity: See `DDF`.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: An argument is not what `DDF` takes.

    Source: Zhou et al., "Decoupled Dynamic Filter Networks", arXiv 2104.14107, section 3.4.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        scale_factor: int = 2,
        dilation: int = 1,
        *,
        se_ratio: float = 0.2,
        combine: str = "mul",
        nonlinearity: str = "linear",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.scale_factor = positive("DDFUp", "scale_factor", scale_factor)
        options: dict[str, Any] = {"se_ratio": se_ratio, "combine": combine, "nonlinearity": nonlinearity}
        options |= {"device": device, "dtype": dtype}
        self.filters = nn.ModuleList(
            DDF(channels, kernel_size, 1, dilation, **options) for _ in range(self.scale_factor**2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, channels, f·H, f·W)."""
        pixels = [filters(x) for filters in self.filters]
        return F.pixel_shuffle(torch.stack(pixels, 2).flatten(1, 2), self.scale_factor)

    def extra_repr(self) -> str:
        """Show ``scale_factor``."""
        return f"scale_factor={self.scale_factor}"

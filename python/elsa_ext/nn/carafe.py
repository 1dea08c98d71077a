"""CARAFE: upsampling in which every new pixel is a mean of the old ones around it, by weights made of the map."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from .checks import positive

# torch.fx records calls of it, instead of looking into tensors that it has not got.
torch.fx.wrap("ghost_head")


class CARAFE(nn.Module):
    """Content-aware reassembly of features: upsampling of (B, channels, H, W) to (B, channels, f·H, f·W).

    ``out[b,c,f·y+p,f·x+q] = Σ_ij W[b,g(c),i,j,p,q,y,x] · x[b,c,y+i−r,x+j−r]``, zeros around the map, g(c) the group
    of channel c, and ``W = softmax_K²(content_encoder(channel_compressor(x)))``, two convolutions. The parameters have
    the names and shapes of mmcv's ``CARAFEPack``.

    Args:
        channels: Channels of the input and the output.
        scale_factor: f.
        kernel_size: K, side of the neighbourhood.
        groups: Groups of channels that share their weights; divides ``channels``.
        encoder_kernel: Side of the kernel of ``content_encoder``, odd.
        compressed_channels: Output channels of ``channel_compressor``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: An argument is not what is said above.

    Source: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", arXiv 1905.02188.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int = 2,
        kernel_size: int = 5,
        *,
        groups: int = 1,
        encoder_kernel: int = 3,
        compressed_channels: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.groups = positive("CARAFE", "channels", channels), positive("CARAFE", "groups", groups)
        if self.channels % self.groups:
            raise ValueError(f"CARAFE: groups must divide channels = {self.channels}, got {self.groups}")
        if positive("CARAFE", "encoder_kernel", encoder_kernel) % 2 == 0:
            raise ValueError(f"CARAFE: encoder_kernel must be odd, got {encoder_kernel}")
        self.scale_factor = positive("CARAFE", "scale_factor", scale_factor)
        self.kernel_size = positive("CARAFE", "kernel_size", kernel_size)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = positive("CARAFE", "compressed_channels", compressed_channels)
        made = self.groups * self.kernel_size**2 * self.scale_factor**2
        self.channel_compressor = nn.Conv2d(self.channels, hidden, 1, **factory)
        self.content_encoder = nn.Conv2d(hidden, made, encoder_kernel, padding=encoder_kernel // 2, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, so that the weights are nearly alike."""
        nn.init.xavier_uniform_(self.channel_compressor.weight)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        for layer in (self.channel_compressor, self.content_encoder):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, channels, f·H, f·W)."""
        logits = self.content_encoder(self.channel_compressor(x)).permute(0, 2, 3, 1)
        taps, pixels = self.kernel_size * self.kernel_size, self.scale_factor * self.scale_factor
        weights = logits.unflatten(-1, [self.groups, taps, pixels]).permute(5, 0, 1, 2, 3, 4).softmax(-1)
        by_pixel = weights.flatten(4).permute(0, 1, 4, 2, 3)  # (f², B, groups·K², H, W)
        sums: list[Tensor] = []
        for pixel in range(pixels):
            sums.append(ghost_head(x, by_pixel[pixel], kernel_size=self.kernel_size))
        return F.pixel_shuffle(torch.stack(sums, 2).flatten(1, 2), self.scale_factor)

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("channels", "scale_factor", "kernel_size", "groups")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

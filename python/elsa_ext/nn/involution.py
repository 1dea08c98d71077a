"""Involution: a filter of every pixel, made of that pixel, shared by groups of channels."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from .checks import positive

# torch.fx records calls of it, instead of looking into tensors that it has not got.
torch.fx.wrap("ghost_head")


class Involution(nn.Module):
    """Involution in the place of a convolution: (B, channels, H, W) in any memory format.

    ``out[b,c,y,x] = Σ_ij W[b,g(c),i,j,y,x] · x[b,c,s·y+(i−r)·d,s·x+(j−r)·d]``, zeros around the map, g(c) the group
    of channel c, and ``W = Conv1x1(ReLU(BatchNorm(Conv1x1(avgpool_s(x)))))``. The output is (B, channels, H // stride,
    W // stride). The parameters have the names and shapes of the official code.

    Args:
        channels: Channels of the input and the output.
        kernel_size: K.
        stride: Distance of output pixels.
        dilation: Distance of neighbours.
        group_width: Channels that share a filter; divides ``channels``.
        reduction: By how much the hidden channels of the filters are fewer than ``channels``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: An argument is not what is said above.

    Source: Li et al., "Involution: Inverting the Inherence of Convolution for Visual Recognition", arXiv 2103.06255.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        *,
        group_width: int = 16,
        reduction: int = 4,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels = positive("Involution", "channels", channels)
        self.group_width = positive("Involution", "group_width", group_width)
        if self.channels % self.group_width:
            raise ValueError(f"Involution: group_width must divide channels = {self.channels}, got {self.group_width}")
        if positive("Involution", "reduction", reduction) > self.channels:
            raise ValueError(f"Involution: reduction must leave a channel of {self.channels}, got {reduction}")
        self.kernel_size = positive("Involution", "kernel_size", kernel_size)
        self.stride = positive("Involution", "stride", stride)
        self.dilation = positive("Involution", "dilation", dilation)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden, groups = self.channels // reduction, self.channels // self.group_width
        reduce: dict[str, nn.Module] = {
            "conv": nn.Conv2d(self.channels, hidden, 1, bias=False, **factory),
            "bn": nn.BatchNorm2d(hidden, **factory),
            "activate": nn.ReLU(),
        }
        span: dict[str, nn.Module] = {"conv": nn.Conv2d(hidden, groups * self.kernel_size**2, 1, **factory)}
        self.avgpool = nn.AvgPool2d(self.stride) if self.stride > 1 else nn.Identity()
        self.conv1, self.conv2 = nn.Sequential(OrderedDict(reduce)), nn.Sequential(OrderedDict(span))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, channels, H // stride, W // stride)."""
        filters = self.conv2(self.conv1(self.avgpool(x)))
        out: Tensor = ghost_head(x, filters, kernel_size=self.kernel_size, dilation=self.dilation, stride=self.stride)
        return out

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("channels", "kernel_size", "stride", "dilation", "group_width")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

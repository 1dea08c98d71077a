"""The layers that attention and a transformer block are made of."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropPath(nn.Module):
    """Stochastic depth: in training, zero whole samples with probability ``p`` and scale the others by 1 / (1 - p).

    Args:
        p: Probability of dropping a sample, in [0, 1].

    Raises:
        ValueError: ``p`` is outside [0, 1].
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"DropPath: p must be in [0, 1], got {p}")
        self.p = float(p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of ``x``, whose first dimension is the batch."""
        if not self.training or self.p == 0.0:
            return x
        return x * F.dropout(x.new_ones([x.shape[0]] + [1] * (x.ndim - 1)), self.p)

    def extra_repr(self) -> str:
        """Show ``p``."""
        return f"p={self.p}"


class Mlp(nn.Module):
    """Two linear layers over the last dimension, ``fc2(act(fc1(x)))``, each followed by dropout.

    Args:
        features: Size of the last dimension, in and out.
        hidden_features: Size of the last dimension in between.
        act_layer: Makes the activation module.
        drop: Dropout probability.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden_features, device=device, dtype=dtype)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, features, device=device, dtype=dtype)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., features) to (..., features)."""
        x = self.drop(self.act(self.fc1(x)))
        x = self.drop(self.fc2(x))
        return x


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution that keeps maps channels-last: (B, C, H, W) to (B, out_channels, H, W), never copied.

    Args:
        *args: As of ``nn.Conv2d``, whose signature adapters call with the type of what they wrap.
        **options: Likewise.

    Raises:
        ValueError: They are those of another convolution than one of 1x1 with stride 1, without padding and groups.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        geometry = (self.kernel_size, self.stride, self.padding, self.groups)
        if geometry != ((1, 1), (1, 1), (0, 0), 1):
            raise ValueError(
                "PointwiseConv2d: kernel_size, stride, padding and groups must be (1, 1), (1, 1), (0, 0) and 1, got "
                + ", ".join(map(str, geometry))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``Σ_c weight[o, c] · x[b, c, y, x] + bias[o]`` as a matrix product over the pixels."""
        # oneDNN's convolution takes up to 1.8 times as long, and float64 would lose the layout.
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

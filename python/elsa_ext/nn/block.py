"""The transformer block around an attention over channels-last maps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .layers import DropPath, Mlp


class Block(nn.Module):
    """Transformer block of an attention and an MLP, (…, dim) in and out.

    ``x = x + drop_path(attn(norm1(x)))``, then ``x + drop_path(mlp(norm2(x)))``.

    Args:
        dim: Channels.
        attn: Maps (…, dim) to (…, dim).
        mlp_ratio: Hidden channels of the MLP, as a multiple of ``dim``.
        drop: Dropout probability of the MLP.
        drop_path: Probability that a sample skips a branch in training.
        act_layer: Makes the activation of the MLP.
        norm_layer: Makes a normalisation, given ``dim``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float,
        drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # Moved instead of made in place: a norm_layer need not take device and dtype.
        self.norm1 = norm_layer(dim).to(device=device, dtype=dtype)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim).to(device=device, dtype=dtype)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer, drop, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, dim) to (…, dim)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x

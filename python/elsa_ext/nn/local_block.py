"""The transformer block around any local operator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .block import Block
from .local_attention import LocalAttention
from .spec import LocalSpec


class LocalAttentionBlock(Block):
    """Transformer block of a local operator and an MLP, (B, H, W, dim) in and out.

    ``x = x + drop_path(attn(norm1(x)))``, then ``x + drop_path(mlp(norm2(x)))``.

    Args:
        dim: Channels.
        spec: See `LocalSpec`.
        mlp_ratio: Hidden channels of the MLP, as a multiple of ``dim``.
        drop: Dropout probability of the MLP.
        drop_path: Probability that a sample skips a branch in training.
        act_layer: Makes the activation of the MLP.
        norm_layer: Makes a normalisation, given ``dim``.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
        **attention: The other arguments of `LocalAttention`.

    Raises:
        ValueError: An argument is not what `LocalAttention` takes.
    """

    def __init__(
        self,
        dim: int,
        spec: str | LocalSpec,
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
        attn = LocalAttention(dim, spec, device=device, dtype=dtype, **attention)
        super().__init__(dim, attn, mlp_ratio, drop, drop_path, act_layer, norm_layer, device, dtype)

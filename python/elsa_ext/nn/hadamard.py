"""The weights of Hadamard attention, as a part of other modules."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.hadamard_attention import hadamard_attention
from .filter_norm import normalise
from .fused import computes_attention

# torch.fx records calls of them, instead of looking into tensors that it has not got.
torch.fx.wrap("hadamard_attention")
torch.fx.wrap("normalise")


class HadamardWeights(nn.Module):
    """Weights of the KxK neighbours of every pixel: ``Norm( Conv1x1( GELU( GroupConvKxK( scale · q ⊙ k ))))``.

    Args:
        dim_qk: Channels of query and key, rounded up to a multiple of ``group_width``.
        heads: Maps of weights.
        kernel_size: K, odd.
        dilation: Distance of neighbours.
        group_width: Channels per group of the KxK convolution.
        scale: Factor of the product.
        norm: "softmax", for which one op answers, "filter" or "none".
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786, section 3.2.
    """

    # For TorchScript, which takes its value at the time of scripting.
    __constants__ = ("fused",)
    __jit_unused_properties__ = ("fused",)

    def __init__(
        self,
        dim_qk: int,
        heads: int,
        kernel_size: int,
        dilation: int,
        group_width: int,
        scale: float,
        norm: str,
        **factory: Any,
    ) -> None:
        super().__init__()
        dim_qk = math.ceil(dim_qk / group_width) * group_width
        self.dim_qk, self.heads, self.kernel_size, self.dilation = dim_qk, heads, kernel_size, dilation
        self.scale, self.norm = scale, norm
        padding, groups = kernel_size // 2 * dilation, dim_qk // group_width
        self.layers: Any = nn.Sequential(
            nn.Conv2d(dim_qk, dim_qk, kernel_size, padding=padding, dilation=dilation, groups=groups, **factory),
            nn.GELU(),
            nn.Conv2d(dim_qk, heads * kernel_size**2, 1, **factory),
        )

    @property
    def fused(self) -> bool:
        """Whether `elsa_ext.hadamard_attention` answers for ``layers`` and the norm: see `fused`."""
        return self.norm == "softmax" and computes_attention(
            self.layers, self.heads, self.kernel_size, self.dilation, 1
        )

    def forward(self, query: Tensor, key: Tensor, gain: Tensor | None) -> Tensor:
        """Make the weights, (B, heads·K², H, W), of maps (B, dim_qk, H, W)."""
        if self.fused:
            conv, proj = self.layers[0], self.layers[2]
            maps: Tensor = hadamard_attention(
                query,
                key,
                conv.weight,
                conv.bias,
                proj.weight,
                proj.bias,
                heads=self.heads,
                scale=self.scale,
                dilation=self.dilation,
            )
            return maps
        logits: Tensor = self.layers(query * key * self.scale)
        by_head = logits.permute(0, 2, 3, 1).unflatten(-1, [self.heads, self.kernel_size * self.kernel_size])
        return normalise(by_head, self.norm, gain).flatten(3).permute(0, 3, 1, 2)

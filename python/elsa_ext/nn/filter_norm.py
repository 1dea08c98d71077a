"""Normalisation of the weights of local operators."""

import torch
from torch import Tensor


def filter_norm(weights: Tensor) -> Tensor:
    """Return weights less their mean, over their unbiased deviation + 1e-10, along the last dimension.

    ``(w − mean(w)) / (std(w) + 1e-10)``, computed in float32 for 16-bit weights.

    Args:
        weights: (…, K²), 2 weights or more.

    Source: Zhou et al., "Decoupled Dynamic Filter Networks", arXiv 2104.14107, section 3.3.
    """
    wide = weights.float() if weights.dtype == torch.float16 or weights.dtype == torch.bfloat16 else weights
    centred = wide - wide.mean(-1, keepdim=True)
    # The norm of zeros has a gradient, 0, where a square root has none.
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * (weights.shape[-1] - 1) ** -0.5
    return (centred / (deviation + 1e-10)).to(weights.dtype)


def normalise(logits: Tensor, norm: str, gain: Tensor | None) -> Tensor:
    """Normalise the weights of every pixel and head over their taps.

    Args:
        logits: (…, heads, taps).
        norm: "softmax", "filter" or "none".
        gain: (heads,), what "filter" multiplies by.
    """
    if norm == "softmax":
        return logits.softmax(-1)
    if gain is not None:
        return filter_norm(logits) * gain.unsqueeze(-1)
    return logits

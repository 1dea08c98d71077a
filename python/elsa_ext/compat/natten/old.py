"""The functions of natten 0.14.1 to 0.14.4, which take no kernel size: their relative bias, or attention, has it."""

import math

from torch import Tensor

from .functional import na1d_av, na1d_qk, na2d_av, na2d_qk

__all__ = ["natten1dav", "natten1dqkrpb", "natten2dav", "natten2dqkrpb"]


def natten1dqkrpb(query: Tensor, key: Tensor, rpb: Tensor, dilation: int) -> Tensor:
    """Name of `na1d_qk`."""
    return na1d_qk(query, key, (rpb.shape[-1] + 1) // 2, dilation, rpb=rpb)


def natten2dqkrpb(query: Tensor, key: Tensor, rpb: Tensor, dilation: int) -> Tensor:
    """Name of `na2d_qk`."""
    return na2d_qk(query, key, (rpb.shape[-1] + 1) // 2, dilation, rpb=rpb)


def natten1dav(attn: Tensor, value: Tensor, dilation: int) -> Tensor:
    """Name of `na1d_av`."""
    return na1d_av(attn, value, attn.shape[-1], dilation)


def natten2dav(attn: Tensor, value: Tensor, dilation: int) -> Tensor:
    """Name of `na2d_av`."""
    return na2d_av(attn, value, math.isqrt(attn.shape[-1]), dilation)

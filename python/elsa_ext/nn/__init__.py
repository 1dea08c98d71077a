"""Modules: ELSA attention, neighborhood attention, all local operators as one, and transformer blocks around them."""

from .elsa import ELSA, ELSABlock
from .local_attention import LocalAttention
from .neighborhood import NeighborhoodAttention, NeighborhoodAttentionBlock
from .spec import LocalSpec

__all__ = [
    "ELSA",
    "ELSABlock",
    "LocalAttention",
    "LocalSpec",
    "NeighborhoodAttention",
    "NeighborhoodAttentionBlock",
]

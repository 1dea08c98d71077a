"""Modules: ELSA attention, neighborhood attention, and the transformer blocks around them."""

from .elsa import ELSA, ELSABlock
from .neighborhood import NeighborhoodAttention, NeighborhoodAttentionBlock

__all__ = ["ELSA", "ELSABlock", "NeighborhoodAttention", "NeighborhoodAttentionBlock"]

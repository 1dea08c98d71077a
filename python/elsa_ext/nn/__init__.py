"""Modules: ELSA, neighborhood attention, all local operators as one, dynamic filters, and transformer blocks."""

from .carafe import CARAFE
from .ddf import DDF, DDFUp
from .elsa import ELSA, ELSABlock
from .involution import Involution
from .local_attention import LocalAttention
from .local_block import LocalAttentionBlock
from .neighborhood import NeighborhoodAttention, NeighborhoodAttentionBlock
from .spec import LocalSpec

__all__ = [
    "CARAFE",
    "DDF",
    "ELSA",
    "DDFUp",
    "ELSABlock",
    "Involution",
    "LocalAttention",
    "LocalAttentionBlock",
    "LocalSpec",
    "NeighborhoodAttention",
    "NeighborhoodAttentionBlock",
]

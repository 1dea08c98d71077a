"""Modules: ELSA, neighborhood attention, all local operators as one, dynamic filters, and transformer blocks."""

from .carafe import CARAFE
from .ddf import DDF, DDFUp
from .elsa import ELSA, ELSABlock
from .involution import Involution
from .local_attention import LocalAttention
from .local_block import LocalAttentionBlock
from .neighborhood import NeighborhoodAttention, NeighborhoodAttentionBlock
from .spec import LocalSpec
from .weights import LocalWeights, attention_weights

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
    "LocalWeights",
    "NeighborhoodAttention",
    "NeighborhoodAttentionBlock",
    "attention_weights",
]

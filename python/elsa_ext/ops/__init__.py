"""The ops: one module each, imported and listed here."""

from .ghost_head import GhostHeadFunction, ghost_head
from .hadamard_attention import HadamardAttentionFunction, hadamard_attention
from .neighborhood_attention import NeighborhoodAttentionFunction, neighborhood_attention
from .neighborhood_logits import NeighborhoodLogitsFunction, neighborhood_logits

# Written out: type checkers read it, and take what is not in it for private.
__all__ = [
    "GhostHeadFunction",
    "HadamardAttentionFunction",
    "NeighborhoodAttentionFunction",
    "NeighborhoodLogitsFunction",
    "ghost_head",
    "hadamard_attention",
    "neighborhood_attention",
    "neighborhood_logits",
]

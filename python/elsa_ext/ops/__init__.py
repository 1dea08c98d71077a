"""The ops: one module each, and one line here."""

from typing import TYPE_CHECKING

from .ghost_head import *
from .hadamard_attention import *
from .neighborhood_attention import *
from .neighborhood_logits import *
from .registration import OPS as _OPS

if not TYPE_CHECKING:  # a type checker takes what the modules above list
    __all__ = [name for op in _OPS.values() for name in (op.functions[0].__name__, op.name)]

"""NATTEN's functions and modules, in the arguments and layouts of its versions 0.14 to 0.21, without its kernels.

A program that says ``import natten`` needs no change: `install` lets it find this. docs/natten.md says what is there.
"""

from . import context, functional
from .context import *
from .functional import *
from .generations import VERSIONS
from .installing import install
from .modules import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D

__version__ = VERSIONS["0.17"]

__all__ = [
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "context",
    "functional",
    "install",
    *context.__all__,
    *functional.__all__,
]

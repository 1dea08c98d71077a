"""Enhanced local self-attention (ELSA) for PyTorch: Hadamard attention and the ghost head as native ops."""

from importlib.metadata import version

from . import _openmp  # noqa: F401  first: torch reads its settings

# isort: split
from . import compat, nn, reference
from ._library import build_info, cmake_prefix_path
from .backend import use_backend
from .ops import flops  # noqa: F401  lets torch's FlopCounterMode count the ops
from .ops.ghost_head import GhostHeadFunction, ghost_head
from .ops.hadamard_attention import HadamardAttentionFunction, hadamard_attention

__version__ = version("elsa-ext")

__all__ = [
    "GhostHeadFunction",
    "HadamardAttentionFunction",
    "build_info",
    "cmake_prefix_path",
    "compat",
    "ghost_head",
    "hadamard_attention",
    "nn",
    "reference",
    "use_backend",
]

"""Local attention for PyTorch as native ops: neighbourhood attention, ELSA, and the family of local operators."""

from importlib.metadata import version

from . import _openmp  # noqa: F401  first: torch reads its settings

# isort: split
from . import _torch_version  # noqa: F401  before what needs torch

# isort: split
from . import compat, nn, ops, reference
from ._library import build_info, cmake_prefix_path, launch_plan
from .backend import use_backend
from .ops import *
from .ops import flops  # noqa: F401  lets torch's FlopCounterMode count the ops

__version__ = version("elsa-ext")

__all__ = [
    "build_info",
    "cmake_prefix_path",
    "compat",
    "launch_plan",
    "nn",
    "reference",
    "use_backend",
]
__all__ += ops.__all__

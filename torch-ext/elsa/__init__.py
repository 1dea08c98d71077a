"""Local attention for PyTorch as native ops: those of elsa-ext, as a kernel of the Hugging Face Hub.

The functions, their derivatives and their shapes are those of the package elsa-ext.
"""

from . import ops as _ops_package
from .backend import use_backend
from .ops import *  # noqa: F403

__all__ = ["use_backend", *_ops_package.__all__]

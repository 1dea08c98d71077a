"""timm models with ELSA attention; importing this module registers them with timm."""

from . import _timm  # noqa: F401  first: it makes timm importable, or says how to install it
from .checkpoint import load_official_checkpoint
from .elsa_swin import ELSASwin, elsa_swin_base, elsa_swin_micro, elsa_swin_small, elsa_swin_tiny

__all__ = [
    "ELSASwin",
    "elsa_swin_base",
    "elsa_swin_micro",
    "elsa_swin_small",
    "elsa_swin_tiny",
    "load_official_checkpoint",
]

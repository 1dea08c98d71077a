"""timm models with ELSA attention; importing this module registers them with timm."""

from . import _timm  # noqa: F401  first: it makes timm importable, or says how to install it
from .checkpoint import load_official_checkpoint, load_volo_checkpoint
from .convert import convert
from .elsa_swin import ELSASwin, elsa_swin_base, elsa_swin_micro, elsa_swin_small, elsa_swin_tiny
from .elsa_volo import ELSAVOLO, elsa_volo_d1, elsa_volo_d2, elsa_volo_d3, elsa_volo_d4, elsa_volo_d5

__all__ = [
    "ELSAVOLO",
    "ELSASwin",
    "convert",
    "elsa_swin_base",
    "elsa_swin_micro",
    "elsa_swin_small",
    "elsa_swin_tiny",
    "elsa_volo_d1",
    "elsa_volo_d2",
    "elsa_volo_d3",
    "elsa_volo_d4",
    "elsa_volo_d5",
    "load_official_checkpoint",
    "load_volo_checkpoint",
]

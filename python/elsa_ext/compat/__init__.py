"""Signatures of other code, for programs that call it today: the official ELSA, and NATTEN."""

from . import natten
from .official import elsa_op

__all__ = ["elsa_op", "natten"]

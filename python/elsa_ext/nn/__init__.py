"""Modules: ELSA attention and the transformer block around it."""

from .elsa import ELSA, ELSABlock

__all__ = ["ELSA", "ELSABlock"]

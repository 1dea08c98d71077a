"""Checks of the arguments of modules."""

import operator
from collections.abc import Sequence
from typing import Any


def positive(module: str, name: str, size: Any) -> int:
    """Return a size as a plain integer, of whatever kind it is."""
    try:
        whole = operator.index(size)
    except TypeError:
        whole = 0
    if whole < 1 or isinstance(size, bool):
        raise ValueError(f"{module}: {name} must be a positive integer, got {size!r}")
    return whole


def per_axis(module: str, name: str, given: Any, axes: int) -> list[Any]:
    """Return one value for every axis, of one for all or one for each."""
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * axes
    if len(values) != axes:
        raise ValueError(f"{module}: {name} must be one for all axes or {axes}, got {given!r}")
    return values

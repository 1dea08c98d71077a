"""All ops: those that the library registers, each described by its own test file, ``test_<op>.py``."""

import importlib
from typing import Any

from ops.backends import registered_ops
from ops.spec import Op

OPS: list[Op] = [
    importlib.import_module(f"ops.test_{name}").OP for name in registered_ops() if not name.endswith("_backward")
]
SMALL = [op.small for op in OPS]
DEFAULT = [op.default for op in OPS]


def every(kind: str) -> list[Any]:
    """What all ops have of one kind, such as ``"sizes"``."""
    return [item for op in OPS for item in getattr(op, kind)]


def of(name: str) -> Op:
    """The op called ``name``."""
    return next(op for op in OPS if op.name == name)

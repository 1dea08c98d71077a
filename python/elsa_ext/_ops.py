"""The namespace of the registered ops, which the package has from here alone.

On the Hugging Face Hub every build has a namespace of its own: kernel-builder writes a file in the place of this one,
with the same two names (``.github/scripts/hub_kernel.py``).
"""

import torch

from . import _library  # noqa: F401  (defines torch.ops.elsa)

ops = torch.ops.elsa


def add_op_namespace_prefix(op_name: str) -> str:
    """Return the whole name of an op, as the dispatcher knows it."""
    return f"elsa::{op_name}"

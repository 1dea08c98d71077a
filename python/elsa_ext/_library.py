"""Loads the op library: importing this module defines ``torch.ops.elsa``."""

from pathlib import Path

import torch

from . import _C

CPU_LIBRARY = next(Path(_C.__file__).parent.glob("libelsa_cpu.*"))

torch.ops.load_library(CPU_LIBRARY)


def build_info() -> dict[str, str]:
    """Return what this build of elsa_ext is: version, compiler, torch, instruction set and library file.

    Raises:
        RuntimeError: ``ELSA_CPU_CAPABILITY`` names an instruction set that is unknown or that this machine lacks.
    """
    return {**_C.build_info(), "library": str(CPU_LIBRARY)}

"""Loads the op libraries: importing this module defines ``torch.ops.elsa``."""

from pathlib import Path

import torch

from . import _C

_FOLDER = Path(_C.__file__).parent
CPU_LIBRARY = next(_FOLDER.glob("libelsa_cpu.*"))

cmake_prefix_path = str(_FOLDER / "share" / "cmake")
"""What CMake's ``find_package(elsa_ext)`` needs in ``CMAKE_PREFIX_PATH``."""


def _load_cuda() -> str:
    """Load the CUDA kernels if this torch can use them, and return what came of it."""
    library = next(_FOLDER.glob("libelsa_cuda.*"), None)
    if library is None:
        reason = _C.cuda_build.removeprefix("none: ")
        return (
            f"elsa_ext was built without CUDA kernels ({reason}); build it again with an nvcc that works on PATH and "
            "ELSA_CUDA=on in the environment"
        )
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    built_for, here = _C.cuda_build.split()[1].split(".")[0], torch.version.cuda.split(".")[0]
    if built_for != here:
        return (
            f"the CUDA kernels of elsa_ext were built for CUDA {built_for} and torch for CUDA {here}; install an "
            f"elsa_ext for CUDA {here}, or a torch for CUDA {built_for}"
        )
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f"{library} does not load: {error}"
    return "loaded"


torch.ops.load_library(CPU_LIBRARY)
CUDA_STATUS = _load_cuda()


def has_kernel(op: str, device: str) -> bool:
    """Tell whether a loaded library has a kernel of ``op`` for a device type."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"elsa::{op}", device.upper())


def build_info() -> dict[str, str]:
    """Return what this build of elsa_ext is: version, compiler, torch, CUDA, instruction set and library file.

    Raises:
        RuntimeError: ``ELSA_CPU_CAPABILITY`` names an instruction set that is unknown or that this machine lacks.
    """
    return {**_C.build_info(), "CUDA kernels here": CUDA_STATUS, "library": str(CPU_LIBRARY)}

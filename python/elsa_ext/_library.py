"""Loads the op libraries, which defines ``torch.ops.elsa``, and says what they are."""

import ctypes
import functools
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from . import __path__ as _folders

CPU_LIBRARY = next(library for folder in _folders for library in Path(folder).glob("libelsa_cpu.*"))
_FOLDER = CPU_LIBRARY.parent

cmake_prefix_path = str(_FOLDER / "share" / "cmake")
"""What CMake's ``find_package(elsa_ext)`` needs in ``CMAKE_PREFIX_PATH``."""


def _load_cuda() -> str:
    """Load the CUDA kernels if this torch can use them, and return what came of it."""
    library = next(_FOLDER.glob("libelsa_cuda.*"), None)
    if library is None:
        reason = _BUILD["CUDA kernels"].removeprefix("none: ")
        return (
            f"elsa_ext was built without CUDA kernels ({reason}); build it again with an nvcc that works on PATH and "
            "ELSA_CUDA=on in the environment"
        )
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    built_for, here = _BUILD["CUDA kernels"].split()[1].split(".")[0], torch.version.cuda.split(".")[0]
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


@functools.cache
def cuda_device_problem(index: int) -> str | None:
    """Return why the CUDA kernels that are loaded do not run on a device, or None if they do."""
    if CUDA_STATUS != "loaded":
        return None
    function = ctypes.CDLL(str(next(_FOLDER.glob("libelsa_cuda.*")))).elsa_cuda_unusable
    function.restype = ctypes.c_char_p
    said: bytes | None = function(index)
    if said is None:
        return None
    built = _BUILD["CUDA kernels"].partition("architectures ")[2]
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    return (
        f"they were built for the architectures {built}, and {name} has compute capability "
        f"{'.'.join(map(str, capability))}: {said.decode()}"
    )


def _read_build() -> dict[str, str]:
    _c_functions.elsa_build_info.restype = ctypes.c_char_p
    return dict(line.split(": ", 1) for line in _c_functions.elsa_build_info().decode().splitlines())


def _read_capability() -> str:
    error = ctypes.c_char_p()
    _c_functions.elsa_cpu_capability.restype = ctypes.c_char_p
    name: bytes | None = _c_functions.elsa_cpu_capability(ctypes.byref(error))
    if name is None:
        raise RuntimeError((error.value or b"").decode())
    return name.decode()


def _best_capability() -> str:
    _c_functions.elsa_best_cpu_capability.restype = ctypes.c_char_p
    name: bytes = _c_functions.elsa_best_cpu_capability()
    return name.decode()


def compiled_part(wanted_by: str) -> Any:
    """Return ``_C``, which a wheel has for some versions of Python alone.

    Raises:
        ImportError: It has none for this one.
    """
    try:
        return import_module("._C", __package__)
    except ModuleNotFoundError:
        tags = sorted(file.name.split(".")[1] for file in _FOLDER.glob("_C.*.*"))
        raise ImportError(
            f"{wanted_by} is not in this elsa_ext for Python {platform.python_version()}, only for "
            f"{', '.join(tags) or 'none'}; its ops are"
        ) from None


torch.ops.load_library(CPU_LIBRARY)
_c_functions = ctypes.CDLL(str(CPU_LIBRARY))
_BUILD = _read_build()
CUDA_STATUS = _load_cuda()


def build_info() -> dict[str, str]:
    """Return what this build of elsa_ext is: version, compiler, torch, CUDA, instruction set and library file.

    Raises:
        RuntimeError: ``ELSA_CPU_CAPABILITY`` names an instruction set that is unknown or that this machine lacks.
    """
    return {
        **_BUILD,
        "cpu_capability": _read_capability(),
        "cpu_capability of this machine": _best_capability(),
        "CUDA kernels here": CUDA_STATUS,
        "library": str(CPU_LIBRARY),
    }


def launch_plan(op: str, **shape: int | str) -> dict[str, int | str]:
    """Return how the CPU kernels of an op would go about a call, from its sizes alone.

    Args:
        op: Name of the op, as ``"ghost_head"``.
        **shape: ``batch``, ``channels``, ``height``, ``width``, ``heads`` and ``kernel_size``; of hadamard_attention
            also ``groups``, those of its K × K convolution; options of the op that are not their default; and
            ``dtype``, ``"float32"`` if it is not given.

    Returns:
        The choices that the kernels make, as the size of a tile, and the bytes of scratch that they take.

    Raises:
        ValueError: There is no such op, a size is missing or unknown, or the op does not take it.
        TypeError: A size is not an integer.
        ImportError: The wheel has no compiled part for this version of Python, beside its ops.

    Example:
        >>> sizes = {"batch": 8, "channels": 96, "height": 56, "width": 56, "heads": 3, "kernel_size": 7}
        >>> elsa_ext.launch_plan("ghost_head", **sizes)["gather"]
        'K = 7 compiled, for tiles that all taps reach'
    """
    plan: dict[str, int | str] = compiled_part("launch_plan").launch_plan(op, **shape)
    return plan

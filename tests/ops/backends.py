"""The implementations that the tests run on."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import elsa_ext
import pytest
import torch


@dataclass(frozen=True)
class Backend:
    """One implementation of the ops: where its tensors live, and what answers a call on them."""

    name: str
    device: str
    implementation: str

    def __str__(self) -> str:
        return self.name

    def missing(self) -> str | None:
        """Say why it cannot run here, or None if it can."""
        if self.device != "cuda":
            return None
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if not torch._C._dispatch_has_kernel_for_dispatch_key("elsa::ghost_head", "CUDA"):
            return f"elsa_ext has no CUDA kernel: {elsa_ext.build_info()['CUDA kernels here']}"
        return None


CPU = Backend("cpu", "cpu", "native")
CUDA = Backend("cuda", "cuda", "native")
EMULATED = Backend("emulated", "cpu", "emulated")
TORCH = Backend("torch", "cpu", "torch")

CUDA_IS_REQUIRED = os.environ.get("ELSA_REQUIRE_CUDA") == "1"


def _is_here(backend: Backend) -> bool:
    """Tell whether tests are to run on ``backend``: what would be skipped for want of a device is no test at all."""
    if backend is CUDA:
        return CUDA_IS_REQUIRED or torch.cuda.is_available()
    return backend is not EMULATED or "ELSA_EMULATED_LIBRARY" in os.environ


ALL = tuple(backend for backend in (CPU, CUDA, EMULATED, TORCH) if _is_here(backend))
NATIVE = tuple(backend for backend in ALL if backend is not TORCH)
UNEMULATED = tuple(backend for backend in ALL if backend is not EMULATED)
HARDWARE = tuple(backend for backend in NATIVE if backend is not EMULATED)


# The instruction sets that there are CPU kernels for, from the worst to the best: those of src/cpu/capability.h.
CAPABILITIES = {
    "x86_64": ("baseline", "avx2", "avx512"),
    "AMD64": ("baseline", "avx2", "avx512"),
    "aarch64": ("neon",),
    "arm64": ("neon",),
}.get(platform.machine(), ("baseline",))


def registered_ops() -> list[str]:
    """Every op of the library by name, the backward ones among them."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.split("::")[1].split(".")[0] for name in names if name.startswith("elsa::")})


@contextmanager
def emulated_kernels(
    answer: Callable[[torch._ops.OpOverload], Callable[..., Any]] = lambda op: op,
) -> Iterator[None]:
    """Let the CUDA kernels, run on the CPU, answer what the CPU kernels answer otherwise; or what ``answer`` makes."""
    torch.ops.load_library(os.environ["ELSA_EMULATED_LIBRARY"])
    library = torch.library.Library("elsa", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")  # torch before 2.13
        for op in registered_ops():
            library.impl(op, answer(getattr(torch.ops.elsa_emulated, op).default), "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def enter(backend: Backend) -> Iterator[Backend]:
    """Make ``backend`` answer the calls of one test, or skip the test (fail it where CUDA is required)."""
    if reason := backend.missing():
        if CUDA_IS_REQUIRED:
            pytest.fail(f"ELSA_REQUIRE_CUDA=1, but {reason}")
        pytest.skip(reason)
    contexts = {"torch": lambda: elsa_ext.use_backend("torch"), "emulated": emulated_kernels}
    with contexts.get(backend.implementation, nullcontext)():
        yield backend

"""The implementations that the tests run on."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import elsa_ext
import pytest
import torch


@dataclass(frozen=True)
class Backend:
    """One implementation of the ops: where its tensors live, and what answers a call on them."""

    name: str
    device: str
    implementation: str

    def missing(self) -> str | None:
        """Say why it cannot run here, or None if it can."""
        if self.implementation == "emulated" and not os.environ.get("ELSA_EMULATED_LIBRARY"):
            return "ELSA_EMULATED_LIBRARY does not name the library with the emulated CUDA kernels"
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

NATIVE = (CPU, CUDA, EMULATED)
ALL = (*NATIVE, TORCH)

EMULATED_OPS = ("ghost_head", "ghost_head_backward", "hadamard_attention", "hadamard_attention_backward")


@contextmanager
def emulated_kernels() -> Iterator[None]:
    """Let the CUDA kernels, run on the CPU, answer what the CPU kernels answer otherwise."""
    torch.ops.load_library(os.environ["ELSA_EMULATED_LIBRARY"])
    library = torch.library.Library("elsa", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")  # torch before 2.13
        for op in EMULATED_OPS:
            library.impl(op, getattr(torch.ops.elsa_emulated, op).default, "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


def enter(backend: Backend) -> Iterator[Backend]:
    """Make ``backend`` answer the calls of one test, or skip the test (fail it where CUDA is required)."""
    if reason := backend.missing():
        if os.environ.get("ELSA_REQUIRE_CUDA") == "1" and backend is CUDA:
            pytest.fail(f"ELSA_REQUIRE_CUDA=1, but {reason}")
        pytest.skip(reason)
    contexts = {"torch": lambda: elsa_ext.use_backend("torch"), "emulated": emulated_kernels}
    with contexts.get(backend.implementation, nullcontext)():
        yield backend

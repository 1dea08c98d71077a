"""The implementations that the tests run on."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import elsa_ext
import pytest
import torch


@dataclass(frozen=True)
class Backend:
    """One implementation of the ops: where its tensors live, and what ``use_backend`` calls it."""

    name: str
    device: str
    implementation: str

    def missing(self) -> str | None:
        """Say why it cannot run here, or None if it can."""
        if self.device != "cuda":
            return None
        if not torch.cuda.is_available():
            return "torch sees no CUDA device"
        if not torch._C._dispatch_has_kernel_for_dispatch_key("elsa::ghost_head", "CUDA"):
            return "elsa_ext has no CUDA kernel"
        return None


CPU = Backend("cpu", "cpu", "native")
CUDA = Backend("cuda", "cuda", "native")
TORCH = Backend("torch", "cpu", "torch")

NATIVE = (CPU, CUDA)
ALL = (*NATIVE, TORCH)


def enter(backend: Backend) -> Iterator[Backend]:
    """Make ``backend`` answer the calls of one test, or skip the test (fail it where CUDA is required)."""
    if reason := backend.missing():
        if os.environ.get("ELSA_REQUIRE_CUDA") == "1":
            pytest.fail(f"ELSA_REQUIRE_CUDA=1, but {reason}")
        pytest.skip(reason)
    with elsa_ext.use_backend("torch") if backend.implementation == "torch" else nullcontext():
        yield backend

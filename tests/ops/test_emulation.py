"""CUDA kernels on the CPU: what they give does not depend on the order in which threads, warps and blocks run."""

from collections.abc import Iterator

import pytest
import torch
from ops.backends import EMULATED, enter
from ops.cases import Case, make, make_grad
from ops.checks import evaluate
from ops.pairwise import pairwise
from ops.registry import every


@pytest.fixture(autouse=True)
def _every_order() -> Iterator[None]:
    for _ in enter(EMULATED):
        torch.ops.elsa_emulated.every_order(True)
        yield
        torch.ops.elsa_emulated.every_order(False)


# The library compares the bits that the orders give. A barrier is at stake where a case has several tiles for a block,
# and several warps and blocks: elsewhere, in a third of the time, one order at random must do.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("case", "dtype", "layout"),
    pairwise(every("kernels"), [torch.float32, torch.bfloat16], ["contiguous", "channels_last"]),
    ids=str,
)
def test_every_order_of_threads_gives_the_same_bits(case: Case, dtype: torch.dtype, layout: str) -> None:
    tensors = make(case, dtype, layouts=case.laid_out(layout))
    for name, result in evaluate(case, tensors, make_grad(case, dtype)).items():
        assert not result.isnan().any(), name

"""Counting the multiply-adds of whole modules."""

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...ops import flops


def count_multiply_adds(call: Callable[[], object]) -> int:
    """Run ``call`` once and return the multiply-adds of its matrix products, convolutions and ops of ours."""
    flops.register()
    # The fused attention of the CPU is no op that the counter knows; the one made of matrix products is.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2

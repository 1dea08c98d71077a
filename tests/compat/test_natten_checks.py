"""What ``compat.natten`` refuses as natten does, where the ops would take other heads for other channels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from elsa_ext.compat import natten
from torch import Tensor

QUERY = torch.zeros(2, 4, 6, 7, 8)  # (B, heads, H, W, dim)
LAST = QUERY.movedim(1, -2)


def _with_last(*size: int) -> Tensor:
    return torch.zeros(*LAST.shape[: -len(size)], *size)


SHAPES = {
    "heads_of_key": (  # which has as many channels
        lambda: natten.na2d_qk(LAST.movedim(-2, 1), _with_last(8, 4).movedim(-2, 1), 3),
        "na2d_qk: key must have shape (2, 4, 6, 7, 8), got (2, 8, 6, 7, 4)",
    ),
    "taps": (  # twice as many, as of twice the heads
        lambda: natten.na2d_av(torch.zeros(2, 4, 6, 7, 18), QUERY, 3),
        "na2d_av: attn must have shape (2, 4, 6, 7, 9), got (2, 4, 6, 7, 18)",
    ),
    "heads_of_value": (  # twice as many, as of twice the channels
        lambda: natten.na2d(LAST, LAST, _with_last(8, 8), 3),
        "na2d: value must have shape (2, 6, 7, 4, 8), got (2, 6, 7, 8, 8)",
    ),
    "shared_heads": (
        lambda: natten.na2d(LAST, _with_last(3, 8), _with_last(3, 8), 3),
        "na2d: key must have heads that divide the 4 of query, got 3",
    ),
    "bias_of_taps": (
        lambda: natten.na2d(LAST, LAST, LAST, 3, rpb=torch.zeros(4, 9)),
        "na2d: rpb must have shape (4, 5, 5), got (4, 9)",
    ),
    "bias_of_samples": (
        lambda: natten.na1d_qk(QUERY[..., 0], QUERY[..., 0], 3, rpb=torch.zeros(2, 4, 5)),
        "na1d_qk: rpb must have shape (4, 5), got (2, 4, 5)",
    ),
    "dimensions": (lambda: natten.na1d_qk(QUERY, QUERY, 3), "na1d_qk: query must have 4 dimensions, got 5"),
    "dimensions_of_value": (lambda: natten.na1d(LAST, LAST, LAST, 3), "na1d: query must have 4 dimensions, got 5"),
    "one_size_of_two": (
        lambda: natten.na2d_qk(QUERY, QUERY, (3,)),
        "na2d_qk: kernel_size must be one for all axes or 2, got (3,)",
    ),
    "two_sizes_of_one": (
        lambda: natten.na1d(LAST[:, 0], LAST[:, 0], LAST[:, 0], 3, is_causal=(True, False)),
        "na1d: is_causal must be one for all axes or 1, got (True, False)",
    ),
}


@pytest.mark.parametrize(("call", "message"), SHAPES.values(), ids=SHAPES)
def test_shapes_that_are_errors_in_natten(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == f"elsa_ext.compat.natten: {message}"


def test_no_distance_is_an_error_as_in_natten() -> None:
    with pytest.raises(RuntimeError, match="dilation must be positive"):
        natten.na2d_qk(QUERY, QUERY, 3, 0)
    with pytest.raises(RuntimeError, match="window_stride must be from 1"):
        natten.na2d(LAST, LAST, LAST, 3, stride=0)

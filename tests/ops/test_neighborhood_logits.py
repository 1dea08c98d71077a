"""neighborhood_logits: its cases, for the tests that all ops share, and what it alone has."""

from dataclasses import dataclass, replace

import elsa_ext
import golden
import pytest
import torch
from ops import local_cases
from ops.backends import Backend
from ops.cases import Shape
from ops.local_cases import Local
from ops.spec import BadCall, Count, Op, drop, to


@dataclass(frozen=True)
class NeighborhoodLogits(Local):
    """One call."""

    op = "neighborhood_logits"
    images = ("query", "key")

    @property
    def shapes(self) -> dict[str, Shape | None]:
        return {"query": self.map, "key": self.map, "bias": self.bias_shape}

    @property
    def out_shape(self) -> Shape:
        rows, columns = self.kernel
        return (self.batch, self.heads * rows * columns, self.height, self.width)


PLAIN = NeighborhoodLogits(channels=6, heads=2, height=5, width=7)


def _counts() -> list[Count]:
    case = NeighborhoodLogits(batch=2, channels=6, heads=2, height=5, width=7, kernel_size=(3, 5))
    products = 2 * 5 * 7 * 15 * 6
    return [
        Count(case, products),
        Count(replace(case, bias="none"), products),
        Count(case, products, ("query",)),
        Count(case, products, ("key",)),
        Count(case, 2 * 5 * 7 * 15 * 2, ("bias",)),
        Count(case, 2 * products + 2 * 5 * 7 * 15 * 2, ("query", "key", "bias")),
    ]


# What is −∞ has no numerical derivative.
OPTIONS = [
    replace(case, border="zeros" if case.border == "mask" else case.border, causal=(0, 0))
    for case in local_cases.options(NeighborhoodLogits)
]
OP = Op(
    small=OPTIONS[0],
    options=OPTIONS,
    sizes=local_cases.sizes(NeighborhoodLogits),
    edges=local_cases.edges(NeighborhoodLogits),
    empty=local_cases.empty(NeighborhoodLogits),
    kernels=local_cases.kernels(NeighborhoodLogits),
    vectors=local_cases.vectors(NeighborhoodLogits),
    laid_out=local_cases.laid_out(NeighborhoodLogits),
    compiled=local_cases.compiled(NeighborhoodLogits),
    bad_calls=local_cases.bad_calls(NeighborhoodLogits, []),
    bad_backward_calls=[
        BadCall("grad_channels", "grad 17 18", PLAIN, {"grad": drop(1)}),
        BadCall("grad_height", "grad 4 5", PLAIN, {"grad": drop(2)}),
        BadCall("grad_double", "grad float64", PLAIN, {"grad": to(torch.float64)}),
    ],
    counts=_counts(),
    random=local_cases.random(NeighborhoodLogits),
)


@pytest.mark.parametrize("case", golden.cases("neighborhood"))
def test_agrees_with_golden_files(backend: Backend, case: golden.Case) -> None:
    given = local_cases.golden_arguments(case, backend.device)
    logits = elsa_ext.neighborhood_logits(given.query, given.key, given.bias, **given.options)
    by_tap, expected = given.by_head(logits), torch.from_numpy(case.arrays["logits"]).to(backend.device)
    assert torch.equal(by_tap.isneginf(), expected.isneginf())
    golden.assert_agrees("logits", by_tap.nan_to_num(neginf=0), expected.nan_to_num(neginf=0))
    golden.assert_agrees("attn", by_tap.softmax(2), case.arrays["attn"])


@pytest.mark.parametrize("border", ["mask", "shift"])
def test_a_tap_that_does_not_count_has_no_gradient(backend: Backend, border: str) -> None:
    """Whatever its gradient says, that of what it might have read does not change."""
    case = replace(PLAIN, border=border, causal=(int(border == "shift"),) * 2, kernel_size=3)
    query, key = torch.randn(2, *case.map, dtype=torch.float64, device=backend.device).unbind()
    leaves = [query.requires_grad_(), key.requires_grad_()]
    logits = elsa_ext.neighborhood_logits(*leaves, **case.options)
    apart = logits.isneginf()
    assert apart.any() and not apart.all()
    grad = torch.randn_like(logits)
    expected = torch.autograd.grad(logits, leaves, grad.masked_fill(apart, 0), retain_graph=True)
    for actual, wanted in zip(torch.autograd.grad(logits, leaves, grad), expected, strict=True):
        assert torch.equal(actual, wanted)

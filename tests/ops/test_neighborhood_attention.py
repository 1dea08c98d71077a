"""neighborhood_attention: its cases, for the tests that all ops share, and what it alone has."""

from dataclasses import dataclass, replace

import elsa_ext
import golden
import pytest
import torch
import torch.nn.functional as F
from ops import local_cases
from ops.backends import Backend
from ops.cases import Shape
from ops.local_cases import Local
from ops.spec import BadCall, Count, Op, drop, squeeze, to


@dataclass(frozen=True)
class NeighborhoodAttention(Local):
    """One call; a head of value has ``wider`` channels more than one of query."""

    op = "neighborhood_attention"
    images = ("query", "key", "value")

    wider: int = 0

    @property
    def shapes(self) -> dict[str, Shape | None]:
        return {"query": self.map, "key": self.map, "value": self.out_shape, "bias": self.bias_shape}

    @property
    def out_shape(self) -> Shape:
        return (self.batch, self.channels + self.heads * self.wider, self.height, self.width)

    def _others(self) -> str:
        return super()._others() + (f"-wider{self.wider}" if self.wider else "")


PLAIN = NeighborhoodAttention(channels=6, heads=2, height=5, width=7)


def _counts() -> list[Count]:
    case = NeighborhoodAttention(batch=2, channels=6, heads=2, height=5, width=7, kernel_size=(3, 5), wider=1)
    taps, query, value, bias = 2 * 5 * 7 * 15, 6, 8, 2
    return [
        Count(case, taps * (query + value)),
        Count(case, taps * (query + value), ("value",)),
        Count(case, taps * (2 * query + value), ("query",)),
        Count(case, taps * (2 * query + value), ("key",)),
        Count(case, taps * (query + value + bias), ("bias",)),
        Count(case, taps * (3 * query + 2 * value + bias), ("query", "key", "value", "bias")),
    ]


OP = Op(
    small=local_cases.options(NeighborhoodAttention)[0],
    options=local_cases.options(NeighborhoodAttention),
    sizes=[
        *local_cases.sizes(NeighborhoodAttention),
        NeighborhoodAttention(wider=2),
        NeighborhoodAttention(channels=64, heads=2, wider=-20, border="shift", kernel_size=5, width=17),
    ],
    edges=[*local_cases.edges(NeighborhoodAttention), NeighborhoodAttention(wider=1)],
    empty=local_cases.empty(NeighborhoodAttention),
    kernels=local_cases.kernels(NeighborhoodAttention),
    vectors=local_cases.vectors(NeighborhoodAttention),
    laid_out=local_cases.laid_out(NeighborhoodAttention),
    compiled=local_cases.compiled(NeighborhoodAttention),
    bad_calls=local_cases.bad_calls(
        NeighborhoodAttention,
        [
            BadCall("value_3d", "value 3", PLAIN, {"value": squeeze}),
            BadCall("value_batch", "value 1 2", PLAIN, {"value": drop(0)}),
            BadCall("value_height", "value 4 5", PLAIN, {"value": drop(2)}),
            BadCall("value_channels", "value 5 2", PLAIN, {"value": drop(1)}),
            BadCall("value_double", "value float64", PLAIN, {"value": to(torch.float64)}),
        ],
    ),
    bad_backward_calls=[
        BadCall("grad_channels", "grad 5 6", PLAIN, {"grad": drop(1)}),
        BadCall("grad_height", "grad 4 5", PLAIN, {"grad": drop(2)}),
        BadCall("grad_double", "grad float64", PLAIN, {"grad": to(torch.float64)}),
    ],
    counts=_counts(),
    random=local_cases.random(NeighborhoodAttention),
)


@pytest.mark.parametrize("case", golden.cases("neighborhood"))
def test_agrees_with_golden_files(backend: Backend, case: golden.Case) -> None:
    given = local_cases.golden_arguments(case, backend.device)
    out = elsa_ext.neighborhood_attention(given.query, given.key, given.value, given.bias, **given.options)
    golden.assert_agrees("out", given.by_head(out), case.arrays["out"])
    out.backward(case.fill("grad", case.arrays["out"].shape).to(backend.device).view_as(out))
    for name in ("query", "key", "value"):
        expected = case.arrays[f"grad_{name}"]
        golden.assert_agrees(f"gradient of {name}", getattr(given, name).grad.view(expected.shape), expected)
    if given.bias is not None:
        golden.assert_agrees("gradient of bias", given.bias.grad, case.arrays["grad_bias"])


@pytest.mark.parametrize("border", ["zeros", "mask", "circular", "shift"])
def test_is_its_unfused_parts(backend: Backend, border: str) -> None:
    """Over a whole map, "shift" and "circular" attend to everything: full attention."""
    case = replace(PLAIN, border=border, kernel_size=(5, 7), bias="none", scale=0.3)
    query, key, value = torch.randn(3, *case.map, dtype=torch.float64, device=backend.device).unbind()
    out = elsa_ext.neighborhood_attention(query, key, value, **case.options)
    logits = elsa_ext.neighborhood_logits(query, key, **case.options)
    if border in ("zeros", "mask"):
        attn = logits.unflatten(1, (2, 35)).softmax(2).flatten(1, 2)
        patches = F.unfold(value, (5, 7), padding=(2, 3)).view(2, 2, 3, 35, 5, 7)
        expected = (attn.view(2, 2, 1, 35, 5, 7) * patches).sum(3).view_as(out)
    else:
        split = (tensor.unflatten(1, (2, 3)).flatten(3).transpose(2, 3) for tensor in (query, key, value))
        expected = F.scaled_dot_product_attention(*split, scale=0.3).transpose(2, 3).reshape(out.shape)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)

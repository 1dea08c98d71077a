"""``nn.attention_weights``: the sum that it tells of is what the layer gives."""

from typing import Any

import pytest
import torch
from elsa_ext.nn import (
    CARAFE,
    DDF,
    ELSA,
    Involution,
    LocalAttention,
    LocalWeights,
    NeighborhoodAttention,
    attention_weights,
)
from golden import assert_agrees
from torch import Tensor, nn

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
DIM, HEADS = 12, 3


def randomised(layer: nn.Module) -> Any:
    """The layer with parameters that are all of some size, in eval mode."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer.eval().requires_grad_(False)


def image(height: int = 9, width: int = 8, dim: int = DIM) -> Tensor:
    return torch.randn(2, height, width, dim, **DOUBLE)


def summed(found: LocalWeights, value: Tensor) -> Tensor:
    """What is summed of a map (B, C, H, W), tap by tap; zeros beyond it."""
    filters = found.filters(range(found.channels))
    outputs, columns = found.weights.shape[-2:], found.kernel_size[1]
    out = value.new_zeros(*value.shape[:2], *outputs)
    for tap in range(filters.shape[2]):
        row, column = found.rows.place[:, tap // columns], found.columns.place[:, tap % columns]
        inside = ((row >= 0) & (row < value.shape[2]))[:, None] & (column >= 0) & (column < value.shape[3])
        looked_at = value[:, :, row % value.shape[2]][..., column % value.shape[3]]
        out += filters[:, :, tap] * looked_at * inside
    return out


SPECS = [
    *("qk softmax neighborhood", "qk+rb softmax neighborhood border=shift", "qr+rk filter neighborhood mul add"),
    *("qk+qr+rk+rb none neighborhood border=circular", "qk+rk softmax neighborhood border=mask mul add"),
    *("rb none neighborhood", "rb softmax neighborhood border=mask add", "rb filter neighborhood border=shift mul"),
    *("rb none neighborhood heads=C", "hadamard softmax neighborhood mul add", "hadamard filter neighborhood"),
    *("qk+rb softmax window", "qk+qr+rk+rb filter window mul add", "rb none window"),
]


def assert_layer_is_its_weights(spec: str, size: tuple[int, int] = (9, 8), **options: Any) -> None:
    heads = None if "heads" in spec else HEADS
    layer = randomised(
        LocalAttention(DIM, spec, heads=heads, **{"kernel_size": 5, "group_width": 4, **DOUBLE, **options})
    )
    x = image(*size)
    found = attention_weights(layer, x)
    # What windows have below and to the right of the map is what qkv makes of zeros.
    windows = nn.functional.pad(x, (0, 0, 0, 12, 0, 12)) if layer.window else x
    value = layer.qkv(windows)[..., -DIM:].permute(0, 3, 1, 2)
    assert found.weights.shape == (2, layer.heads, found.kernel_size[0] * found.kernel_size[1], *size)
    assert_agrees("out", layer.proj(summed(found, value).permute(0, 2, 3, 1)), layer(x))
    if layer.norm == "softmax":
        assert_agrees("sums", found.weights.sum(2), torch.ones(2, layer.heads, *size, **DOUBLE))
    assert found.signed == (layer.norm != "softmax")


@pytest.mark.parametrize("spec", SPECS)
def test_any_operator(spec: str) -> None:
    assert_layer_is_its_weights(spec)


SIZES = [
    pytest.param(spec, options, id=f"{spec}-{options}")
    for spec in SPECS
    for options in ({"dilation": 2, "kernel_size": 3}, {"kernel_size": (4, 3)})
    if options["kernel_size"] == 3 or "hadamard" not in spec  # which needs one odd kernel size
]


@pytest.mark.thorough
@pytest.mark.parametrize(("spec", "options"), SIZES)
def test_any_operator_of_other_sizes(spec: str, options: dict[str, Any]) -> None:
    assert_layer_is_its_weights(spec, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("spec", [spec for spec in SPECS if "window" in spec])
@pytest.mark.parametrize("shift", [2, (0, 1)])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (3, 4)])
def test_shifted_windows(spec: str, shift: Any, size: tuple[int, int]) -> None:
    assert_layer_is_its_weights(spec, size, kernel_size=4, shift=shift)


@pytest.mark.parametrize(
    "spec", ["qk+rb softmax neighborhood border=shift", "qr filter neighborhood border=shift mul add"]
)
def test_maps_smaller_than_a_neighborhood(spec: str) -> None:
    assert_layer_is_its_weights(spec, (3, 9))
    assert_layer_is_its_weights(spec, (4, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"border": "shift", "rel_pos_bias": True},
        {"border": "shift", "dilation": 2, "kernel_size": 3, "rel_pos_bias": True},
        {"border": "shift", "window_stride": (2, 3)},
        {"border": "shift", "causal": (True, False)},
        {"border": "shift", "kernel_size": (11, 3), "rel_pos_bias": True},
        {"border": "zeros", "rel_pos_bias": True},
        {"border": "mask", "dilation": (2, 1)},
        {"border": "circular", "kernel_size": (4, 5)},
    ],
    ids=str,
)
def test_neighborhood_attention(options: dict[str, Any]) -> None:
    layer = randomised(NeighborhoodAttention(DIM, HEADS, **{"kernel_size": 5, **DOUBLE, **options}))
    x = image()
    found = attention_weights(layer, x)
    value = layer.qkv(x)[..., -DIM:].permute(0, 3, 1, 2)
    assert_agrees("out", layer.proj(summed(found, value).permute(0, 2, 3, 1)), layer(x))
    assert found.weights[:, :, ~found.counts].eq(0).all()


def test_sequences() -> None:
    layer = randomised(NeighborhoodAttention(DIM, HEADS, (5,), rel_pos_bias=True, causal=True, **DOUBLE))
    x = image()[:, 0]
    found = attention_weights(layer, x)
    value = layer.qkv(x)[..., -DIM:].transpose(1, 2).unsqueeze(2)
    assert_agrees("out", layer.proj(summed(found, value).squeeze(2).transpose(1, 2)), layer(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lam": 0},
        {"gamma": 0},
        {"lam": 0, "gamma": 0.5, "dilation": 2},
        {"stride": 2},
        {"stride": 3, "kernel_size": 3},
    ],
    ids=str,
)
def test_elsa(options: dict[str, Any]) -> None:
    layer = randomised(ELSA(DIM, HEADS, group_width=4, **{"kernel_size": 5, **options}, **DOUBLE))
    x = image()
    found = attention_weights(layer, x)
    value = layer.pre_proj(x.permute(0, 3, 1, 2))[:, -DIM:]
    assert_agrees("out", layer.post_proj(summed(found, value).permute(0, 2, 3, 1)), layer(x))


@pytest.mark.parametrize(
    "layer",
    [
        DDF(DIM, **DOUBLE),
        DDF(DIM, 5, 2, combine="add", **DOUBLE),
        DDF(DIM, 3, 3, 2, **DOUBLE),
        Involution(DIM, 3, group_width=4, **DOUBLE),
        Involution(DIM, 4, 2, 2, group_width=6, **DOUBLE),
        CARAFE(DIM, compressed_channels=8, groups=2, **DOUBLE),
        CARAFE(DIM, 3, 4, compressed_channels=8, **DOUBLE),
    ],
    ids=str,
)
def test_in_the_place_of_a_convolution(layer: nn.Module) -> None:
    x = image().permute(0, 3, 1, 2)
    found = attention_weights(randomised(layer), x)
    assert_agrees("out", summed(found, x), layer(x))
    assert found.signed != isinstance(layer, CARAFE)


def test_one_output() -> None:
    layer = randomised(
        LocalAttention(DIM, "qk+rb softmax window mul add", heads=HEADS, kernel_size=4, shift=2, **DOUBLE)
    )
    found = attention_weights(layer, image(8, 12))
    one = found.at(1, 10)
    assert torch.equal(one.filters([0, 7])[..., 0, 0], found.filters([0, 7])[..., 1, 10])
    assert (one.rows.place.tolist(), one.columns.place.tolist()) == ([[-2, -1, 0, 1]], [[10, 11, 12, 13]])
    assert one.rows.counts.tolist() == [[False, False, True, True]]
    assert one.counts.sum() == 4


def test_other_layers() -> None:
    with pytest.raises(TypeError, match=r"attention_weights: layer must be one of ELSA, .*CARAFE, got Linear"):
        attention_weights(nn.Linear(2, 2), torch.zeros(2, 2))

    class Own(ELSA):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match="got Own"):
        attention_weights(Own(8, 2), torch.zeros(1, 4, 4, 8))

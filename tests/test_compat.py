"""``compat.elsa_op``: the official function, its layout, its numbers."""

from typing import Any

import golden
import pytest
import restated
import torch
from elsa_ext.compat import elsa_op, official
from golden import Case, assert_agrees
from torch import Tensor


@pytest.mark.parametrize("case", golden.cases("ghost_head"))
def test_official_numbers(case: Case, backend: Any) -> None:
    s = dict(case.settings)
    batch, heads, channels = s.pop("batch"), s.pop("heads"), s.pop("channels")
    height, width = s.pop("height"), s.pop("width")
    size, stride = s["kernel_size"], s["stride"]
    entries, per_head = batch * heads, channels // heads
    inputs = {
        "value": case.fill("value", (entries, per_head, height, width)),
        "attn": case.fill("attn", (entries, size**2, height // stride, width // stride), 0, 1),
        "ghost_mul": case.fill("ghost_mul", (channels, size, size), 0.25, 1.5),
        "ghost_add": case.fill("ghost_add", (channels, size, size), -0.5, 0.5),
    }
    inputs = {name: tensor.to(backend.device).requires_grad_() for name, tensor in inputs.items()}

    def per_entry(matrix: Tensor) -> Tensor:
        return matrix.expand(batch, channels, size, size).reshape(entries, per_head, size, size)

    out = elsa_op(inputs["value"], per_entry(inputs["ghost_mul"]), per_entry(inputs["ghost_add"]), inputs["attn"], **s)
    assert_agrees("out", out, case.arrays["out"])
    out.backward(case.fill("grad", out.shape).to(backend.device))
    for name, tensor in inputs.items():
        # A lam or gamma of 0 leaves a matrix out of the graph: its gradient is zero.
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        assert_agrees(f"grad_{name}", grad, case.arrays[f"grad_{name}"])


SETTINGS = {
    "defaults": {},
    "k1": {"kernel_size": 1},
    "k11": {"kernel_size": 11},
    "k9_map_smaller": {"kernel_size": 9, "size": (3, 2)},
    "dilation3": {"kernel_size": 3, "dilation": 3},
    "stride3": {"kernel_size": 3, "stride": 3, "size": (9, 12)},
    "stride2_odd": {"kernel_size": 5, "stride": 2, "size": (7, 9)},
    "stride3_dilation2": {"kernel_size": 3, "stride": 3, "dilation": 2, "size": (8, 10)},
    "lam2": {"lam": 2},
    "lam_half": {"lam": 0.5},
    "gamma_negative": {"gamma": -1.5},
    "one_channel": {"channels": 1, "kernel_size": 7},
    "neither": {"lam": 0, "gamma": 0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_formula(settings: dict[str, Any], backend: Any) -> None:
    s = {"lam": 1, "gamma": 1, "kernel_size": 5, "dilation": 1, "stride": 1, **settings}
    (height, width), channels, entries = s.pop("size", (6, 7)), s.pop("channels", 3), 4
    size, stride = s["kernel_size"], s["stride"]
    shapes = {
        "features": (entries, channels, height, width),
        "ghost_mul": (entries, channels, size, size),
        "ghost_add": (entries, channels, size, size),
        "h_attn": (entries, size**2, height // stride, width // stride),
    }
    inputs = [torch.rand(shape, dtype=torch.float64) + 0.1 for shape in shapes.values()]
    ours = [tensor.to(backend.device).requires_grad_() for tensor in inputs]
    theirs = [tensor.requires_grad_() for tensor in inputs]

    value, mul, add, attn = theirs
    expected = restated.ghost_head(
        value, attn, mul ** s["lam"], add * s["gamma"], size, dilation=s["dilation"], stride=stride
    )
    out = elsa_op(*ours, **s)
    assert_agrees("out", out, expected.detach())
    grad = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(grad)
    out.backward(grad.to(backend.device))
    for name, our, their in zip(shapes, ours, theirs, strict=True):
        assert_agrees(f"grad of {name}", torch.zeros_like(our) if our.grad is None else our.grad, their.grad)


@pytest.mark.parametrize(("entries", "height", "stride"), [(0, 4, 1), (2, 3, 4)])
def test_empty_result(entries: int, height: int, stride: int, backend: Any) -> None:
    features, attn = torch.ones(entries, 3, height, 8), torch.ones(entries, 9, height // stride, 8 // stride)
    matrix = torch.ones(entries, 3, 3, 3)
    tensors = (tensor.to(backend.device) for tensor in (features, matrix, matrix, attn))
    assert elsa_op(*tensors, 1, 1, 3, 1, stride).shape == (entries, 3, height // stride, 8 // stride)


def call(**changed: Any) -> Tensor:
    arguments: dict[str, Any] = {
        "features": torch.ones(2, 3, 4, 5),
        "ghost_mul": torch.ones(2, 3, 3, 3),
        "ghost_add": torch.ones(2, 3, 3, 3),
        "h_attn": torch.ones(2, 9, 4, 5),
        "lam": 1,
        "gamma": 1,
        "kernel_size": 3,
    }
    return elsa_op(**{**arguments, **changed})


def test_official_defaults() -> None:
    given = torch.ones(1, 2, 6, 6), torch.ones(1, 2, 5, 5), torch.ones(1, 2, 5, 5), torch.ones(1, 25, 6, 6)
    assert torch.equal(elsa_op(*given, 1, 1), elsa_op(*given, 1, 1, 5, 1, 1, "f"))


def test_identity_matrices_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(official, "ghost_head", lambda value, attn, mul, add, **options: seen.append((mul, add)))
    call(lam=0, ghost_mul=None, gamma=0, ghost_add=None)
    call(lam=0, gamma=0)
    assert seen == [(None, None)] * 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ghost_mul": None}, "elsa_op: ghost_mul must be a tensor when lam is not 0, got None"),
        ({"ghost_add": None, "gamma": 2}, "elsa_op: ghost_add must be a tensor when gamma is not 0, got None"),
        # The op itself would read two heads from it.
        ({"h_attn": torch.ones(2, 18, 4, 5), "features": torch.ones(2, 4, 4, 5)}, r"elsa_op: h_attn .*got \(2, 18, 4"),
        ({"h_attn": torch.ones(2, 9, 20)}, r"elsa_op: h_attn must have shape .*got \(2, 9, 20\)"),
    ],
)
def test_bad_calls(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changed)

"""``convert`` to any local operator: what a Swin keeps, what computes the same, and that it trains."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsa_ext.models import convert
from elsa_ext.nn import LocalAttention
from models.test_convert import IMAGES, small_swin, small_volo
from models.test_convert_neighborhood import with_tables
from torch import nn


def layers(model: nn.Module) -> list[LocalAttention]:
    return [module for module in model.modules() if isinstance(module, LocalAttention)]


@pytest.mark.parametrize("options", [{}, {"head_dim": 5, "qkv_bias": False}], ids=str)
def test_windows_compute_what_the_swin_did(options: dict[str, Any]) -> None:
    """Those that are shifted too; the last maps are smaller than a window."""
    model = with_tables(small_swin(dtype=torch.float64, depths=(2, 2, 2, 1), **options)).eval()
    expected = model(IMAGES.double()).detach()
    out = convert(model, to="qk+rb softmax window")(IMAGES.double())
    assert [layer.shift for layer in layers(model)][:2] == [[0, 0], [2, 2]]
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_windows_of_another_size_are_shifted_where_those_of_the_swin_are() -> None:
    model = convert(small_swin(depths=(2, 2)), to="qk softmax window", kernel_size=(3, 2))
    assert [layer.shift for layer in layers(model)] == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_sliding_windows_are_those_of_neighborhood() -> None:
    ours, theirs = (with_tables(small_swin(dtype=torch.float64)).eval() for _ in range(2))
    ours.load_state_dict(theirs.state_dict())
    convert(ours, to="qk+rb softmax neighborhood border=shift")
    convert(theirs, to="neighborhood")
    torch.testing.assert_close(ours(IMAGES.double()), theirs(IMAGES.double()), rtol=1e-10, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "spec",
    [
        "qk+rb softmax window",
        "qk+rb softmax neighborhood",
        "rb none neighborhood heads=C",
        "rb none window heads=C",
        "qr filter neighborhood",
        "qk+qr+rk+rb softmax neighborhood border=shift",
        "hadamard softmax neighborhood mul add",
    ],
)
def test_a_few_steps_of_training(spec: str) -> None:
    size = 3 if "hadamard" in spec else None
    model = convert(small_swin(depths=(2, 1)), to=spec, kernel_size=size)
    assert {layer.spec for layer in layers(model)} == {spec} and len(layers(model)) == 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    target, losses = torch.tensor([1, 3]), []
    for _ in range(6):
        loss = F.cross_entropy(model(IMAGES), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (small_swin, {"to": "qk softmax everywhere"}, ValueError, "LocalSpec: region must be neighborhood or window"),
        (
            small_swin,
            {"to": "qk softmax window", "lam": 1},
            ValueError,
            'convert: lam is for to="elsa", got 1 with to="qk softmax window"',
        ),
        (
            small_volo,
            {"to": "qk softmax window"},
            TypeError,
            'convert: to="qk softmax window" takes a model that holds a SwinTransformer of timm, got VOLO',
        ),
    ],
)
def test_errors_leave_the_model_alone(make: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = make()
    before = list(model.modules())
    with pytest.raises(error) as caught:
        convert(model, **options)
    assert str(caught.value).startswith(message)
    assert list(map(id, model.modules())) == list(map(id, before))

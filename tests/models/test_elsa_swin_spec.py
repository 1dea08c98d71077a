"""ELSA-Swin with another local operator in place of ELSA."""

from typing import Any

import pytest
import timm
import torch
from elsa_ext.models import convert
from elsa_ext.nn import ELSA, LocalAttention
from models.test_convert_neighborhood import with_tables
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import nn

pytestmark = pytest.mark.thorough

MICRO = {"patch_size": 2, "window_size": 4, "embed_dim": 32, "depths": (1, 2, 1), "num_heads": (2, 4, 8)}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def micro(spec: str | None, **options: Any) -> nn.Module:
    return timm.create_model("elsa_swin_micro", spec=spec, **options)


def layers(model: nn.Module) -> list[LocalAttention]:
    return [module for module in model.modules() if isinstance(module, LocalAttention)]


def test_window_attention_is_timms_swin() -> None:
    """Shifted in every second block."""
    swin = with_tables(SwinTransformer(img_size=32, num_classes=10, **MICRO)).eval()
    ours = micro("qk+rb softmax window").eval()
    assert [layer.shift for layer in layers(ours)] == [[0, 0], [0, 0], [2, 2]]
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in swin.parameters())
    expected = swin(IMAGES)
    ours.load_state_dict(convert(swin, [0, 1], to="qk+rb softmax window").state_dict())
    torch.testing.assert_close(ours(IMAGES), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", ["", " mul", " add", " mul add", " border=zeros add"])
def test_elsa(words: str) -> None:
    lam, gamma = int("mul" in words), int("add" in words)
    torch.manual_seed(0)
    ours = micro("hadamard softmax neighborhood" + words, group_width=4).state_dict()
    torch.manual_seed(0)
    theirs = micro(None, lam=lam, gamma=gamma, group_width=4).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("spec", "side"),
    [
        ("qk+rb softmax neighborhood border=shift", 5),
        ("rb none window heads=C", 4),
        ("qr none neighborhood", 5),
        ("hadamard none neighborhood", 5),
        ("hadamard softmax neighborhood heads=2", 5),
    ],
)
def test_others(spec: str, side: int) -> None:
    model = micro(spec, kernel_size=5, group_width=4)
    assert [layer.spec for layer in layers(model)] == [spec] * 3
    assert not any(isinstance(module, ELSA) for module in model.modules())
    assert all(layer.kernel_size == [side, side] for layer in layers(model))
    assert isinstance(model.layers[-1].blocks[0], SwinTransformerBlock)
    assert model(IMAGES).shape == (2, 10)
    for layer in layers(model):
        weight = layer.qkv.weight  # as timm draws those of a Swin
        assert weight.std().item() == pytest.approx(0.02, rel=0.15) and not layer.qkv.bias.any()
        if layer.hadamard is not None:
            assert layer.scale == 1 and layer.hadamard.layers[0].weight.shape[1] == 4


def test_what_is_not_decayed() -> None:
    """Biases of relative positions, as in a Swin; not the filters of a convolution."""
    tables = {f"layers.{block}.attn.r_bias" for block in ("0.blocks.0", "1.blocks.0", "1.blocks.1")}
    last = {"layers.2.blocks.0.attn.relative_position_bias_table"}
    assert micro("qk+rb softmax window").no_weight_decay() == tables | last
    assert micro("rb none neighborhood heads=C").no_weight_decay() == last
    assert micro(None).no_weight_decay() == last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": "qk softmax"}, "a spec has terms, a norm and a region"),
        ({"spec": "hadamard softmax neighborhood", "lam": 1}, "lam and gamma are mul and add in spec, got 1 and 1"),
        ({"spec": "hadamard none neighborhood", "kernel_size": 4}, "hadamard needs one odd kernel_size"),
        ({"spec": "qk softmax window heads=5"}, "heads must divide the 32 channels of every stage, got 5"),
    ],
    ids=str,
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("elsa_swin_micro", **options)

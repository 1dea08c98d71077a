"""``convert`` to neighborhood attention: which weights a Swin keeps, where it computes the same, what is refused."""

from typing import Any

import pytest
import timm
import torch
from elsa_ext.models import convert
from elsa_ext.nn import NeighborhoodAttention, NeighborhoodAttentionBlock
from models.test_convert import IMAGES, assert_refused, small_swin, small_volo
from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn


def layers(model: nn.Module) -> list[NeighborhoodAttention]:
    return [module for module in model.modules() if isinstance(module, NeighborhoodAttention)]


def windows(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, SwinTransformerBlock)]


def with_tables(model: nn.Module) -> nn.Module:
    """Tables of relative positions that a mistake would not leave alike."""
    for block in windows(model):
        nn.init.normal_(block.attn.relative_position_bias_table)
    return model


def test_where_every_map_is_one_window_nothing_changes() -> None:
    """Windows are as large as maps at most; (8, 4) of one that is longer than wide."""
    model = with_tables(small_swin(img_size=(32, 16), window_size=8, dtype=torch.float64)).eval()
    assert [block.attn.window_size for block in windows(model)] == [(8, 4), (4, 2), (4, 2), (2, 1), (2, 1), (1, 1)]
    images = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    expected = model(images).detach()
    out = convert(model, to="neighborhood")(images)
    assert len(layers(model)) == 6 and not windows(model)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_all_weights_are_kept() -> None:
    model = with_tables(small_swin(dtype=torch.float64)).eval()
    before = dict(model.named_parameters())
    convert(model, to="neighborhood")
    after = dict(model.named_parameters())
    tables = {name for name in before if name.endswith("relative_position_bias_table")}
    assert {name for name in after if not name.endswith("rpb")} == set(before) - tables
    assert all(after[name] is before[name] for name in set(before) - tables)
    for name in tables:
        prefix = name.removesuffix("relative_position_bias_table")
        rpb, table = after[f"{prefix}rpb"], before[name]
        heads, rows, columns = rpb.shape
        assert table.shape == (rows * columns, heads) and rpb.dtype == torch.float64
        # timm's offset is query less key, natten's key less query: what is first for one is last for the other.
        assert torch.equal(rpb[:, 0, 0], table[-1]) and torch.equal(rpb[:, 0, -1], table[-columns])
    assert not any(module.training for module in model.modules())


@pytest.mark.thorough
def test_settings_are_kept() -> None:
    options = {"attn_drop_rate": 0.2, "proj_drop_rate": 0.1, "drop_path_rate": 0.3, "qkv_bias": False, "head_dim": 5}
    model = small_swin(**options, window_size=(4, 3), norm_layer=nn.RMSNorm)
    blocks = windows(model)
    convert(model, to="neighborhood")
    new = [module for module in model.modules() if isinstance(module, NeighborhoodAttentionBlock)]
    for block, made in zip(blocks, new, strict=True):
        attn = made.attn
        assert (attn.heads, attn.head_dim, attn.scale) == (block.attn.num_heads, 5, block.attn.scale)
        assert tuple(attn.kernel_size) == block.attn.window_size and attn.border == "shift"
        assert (attn.attn_drop.p, attn.proj_drop.p) == (0.2, 0.1)
        assert made.drop_path.p == getattr(block.drop_path1, "drop_prob", 0.0)
        assert (attn.qkv, attn.proj) == (block.attn.qkv, block.attn.proj) and attn.qkv.bias is None
        assert (made.norm1, made.norm2, made.mlp) == (block.norm1, block.norm2, block.mlp) and made.training
    assert new[0].attn.kernel_size == [4, 3]


@pytest.mark.thorough
def test_stages_and_frozen_tables() -> None:
    model = small_swin()
    for block in windows(model):
        block.attn.relative_position_bias_table.requires_grad_(False)
    convert(model, [1], to="neighborhood")
    assert len(layers(model)) == 2 and len(windows(model)) == 4
    assert not any(layer.rpb.requires_grad for layer in layers(model))
    convert(model, [0, 2])  # the others to ELSA
    assert len(windows(model)) == 1 and model(IMAGES).shape == (2, 5)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resize
def test_another_kernel_size() -> None:
    model = with_tables(small_swin())
    tables = [block.attn.relative_position_bias_table for block in windows(model)]
    convert(model, to="neighborhood", kernel_size=(5, 6))
    for layer, table in zip(layers(model), tables, strict=True):
        assert layer.kernel_size == [5, 6]
        length = table.shape[0]
        old = (4, 4) if length == 49 else (2, 3)
        resized = resize_rel_pos_bias_table(table.detach(), (5, 6), (99, table.shape[1]), old).view(9, 11, -1)
        torch.testing.assert_close(layer.rpb.detach(), resized.flip(0, 1).permute(2, 0, 1))
    assert model(IMAGES).shape == (2, 5)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resize of relative position tables
def test_any_size_of_image_afterwards() -> None:
    """Larger ones, and ones whose maps are smaller than the neighbourhood."""
    model = convert(small_swin(strict_img_size=False), to="neighborhood").eval()
    for size in ((64, 96), (128, 64), (36, 40), (32, 32)):
        assert model(torch.zeros(1, 3, *size)).isfinite().all()
    model.set_input_size((128, 64))
    assert model(torch.zeros(1, 3, 128, 64)).shape == (1, 5)


@pytest.mark.thorough
def test_every_parameter_trains() -> None:
    model = convert(small_swin(attn_drop_rate=0.1), to="neighborhood")
    model(IMAGES).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.thorough
def test_features_only_and_traced() -> None:
    model = convert(small_swin(features_only=True, out_indices=(0, 2)), to="neighborhood").eval()
    assert [tuple(taken.shape) for taken in model(IMAGES)] == [(2, 16, 24, 8), (2, 4, 6, 32)]
    whole = convert(small_swin(), to="neighborhood").eval()
    assert torch.equal(torch.fx.symbolic_trace(whole)(IMAGES), whole(IMAGES))


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (
            lambda: timm.create_model("swinv2_tiny_window8_256", depths=(1, 1), embed_dim=24),
            {},
            TypeError,
            'convert: to="neighborhood" takes a model that holds a SwinTransformer of timm, got SwinTransformerV2; '
            "its attention is a cosine, under a bias that a network makes",
        ),
        (
            small_volo,
            {},
            TypeError,
            'convert: to="neighborhood" takes a model that holds a SwinTransformer of timm, got VOLO; '
            "its outlook attention has no query and no key",
        ),
        (
            lambda: nn.Sequential(nn.Linear(1, 1)),
            {},
            TypeError,
            'convert: to="neighborhood" takes a model that holds a SwinTransformer of timm, got Sequential',
        ),
        (
            lambda: convert(small_swin(), [2]),
            {},
            ValueError,
            "convert: stages must hold blocks of SwinTransformerBlock, stage 2 holds ELSASwinBlock",
        ),
        (small_swin, {"stages": [4]}, ValueError, "convert: stages must be 0 to 3, got 4"),
        (
            small_swin,
            {"kernel_size": 0},
            ValueError,
            "NeighborhoodAttention: kernel_size must be a positive integer, got 0",
        ),
        (
            small_swin,
            {"kernel_size": (3,)},
            ValueError,
            "convert: kernel_size must be one for all axes or 2, got (3,)",
        ),
        (
            small_swin,
            {"lam": 1},
            ValueError,
            'convert: lam is for to="elsa", got 1 with to="neighborhood"',
        ),
        (
            small_swin,
            {"gamma": 0},
            ValueError,
            'convert: gamma is for to="elsa", got 0 with to="neighborhood"',
        ),
    ],
)
def test_errors_leave_the_model_alone(
    make: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    assert_refused(make(), {"to": "neighborhood", **arguments}, error, message)

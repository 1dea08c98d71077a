"""``convert``: what becomes ELSA, what stays, and a model left alone on failure."""

from typing import Any

import pytest
import timm
import torch
from elsa_ext.models import convert
from elsa_ext.nn import ELSA, ELSABlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.volo import Outlooker, Transformer, _create_volo
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 96).reshape(2, 3, 64, 96)
SHARED = {"img_size": (64, 96), "num_classes": 5}


def small_swin(**changed: Any) -> SwinTransformer:
    arguments = {
        "img_size": (64, 96),
        "embed_dim": 8,
        "depths": (1, 2, 2, 1),
        "num_heads": (1, 2, 4, 8),
        "window_size": 4,
    }
    return timm.create_model("swin_tiny_patch4_window7_224", **{**arguments, "num_classes": 5, **changed})


def small_volo(**changed: Any) -> nn.Module:
    arguments = {
        "img_size": (64, 96),
        "layers": (2, 1, 1, 1),
        "embed_dims": (16, 32, 32, 32),
        "num_heads": (2, 4, 4, 4),
    }
    return _create_volo("volo_d1_224", **{**arguments, "num_classes": 5, **changed})


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    """The kind of block of every stage, in order."""
    blocks = (ELSABlock, SwinTransformerBlock, Outlooker, Transformer)
    found = {
        name.rpartition(".")[0]: type(module) for name, module in model.named_modules() if isinstance(module, blocks)
    }
    return [next(kind for kind in blocks if issubclass(given, kind)) for given in found.values()]


def assert_refused(model: nn.Module, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    """``convert`` says why, and the model is as it was."""
    before = list(model.modules())
    with pytest.raises(error) as caught:
        convert(model, **arguments)
    assert str(caught.value) == message
    assert list(map(id, model.modules())) == list(map(id, before))


E, W = ELSABlock, SwinTransformerBlock


@pytest.mark.parametrize(
    ("stages", "expected"), [(None, [E, E, E, W]), ([1], [W, E, W, W]), ((0, 3), [E, W, W, E]), ([], [W, W, W, W])]
)
def test_stages_of_a_swin(stages: list[int] | None, expected: list[type[nn.Module]]) -> None:
    model = small_swin()
    assert convert(model, stages) is model
    assert kinds(model) == expected
    assert model(IMAGES).shape == (2, 5)


@pytest.mark.parametrize(
    ("outlook", "stages", "expected"),
    [
        ((True, False, False, False), None, [E, Transformer, Transformer, Transformer]),
        ((True, True, False, False), None, [E, E, Transformer, Transformer]),
        ((True, True, False, False), [1], [Outlooker, E, Transformer, Transformer]),
    ],
)
def test_stages_of_a_volo(outlook: tuple[bool, ...], stages: list[int] | None, expected: list[type[nn.Module]]) -> None:
    model = convert(small_volo(outlook_attention=outlook), stages)
    assert kinds(model) == expected
    assert model(IMAGES).shape == (2, 5)


@pytest.mark.parametrize("make", [small_swin, small_volo])
def test_all_but_the_attention_is_kept(make: Any) -> None:
    model = make(dtype=torch.float64).eval()
    before = dict(model.named_parameters())
    convert(model)
    after = dict(model.named_parameters())
    layers = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, ELSA))
    assert layers
    # The very same objects, so an optimizer keeps their state.
    kept = {name for name in before if not name.startswith(layers)}
    assert all(after[name] is before[name] for name in kept)
    assert {name for name in after if not name.startswith(layers)} == kept
    assert all(after[name].dtype == torch.float64 for name in after)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("make", "expected"), [(small_swin, {"kernel_size": 7, "lam": 0}), (small_volo, {"kernel_size": 5, "lam": 1})]
)
def test_settings(make: Any, expected: dict[str, int]) -> None:
    def attn(model: nn.Module) -> ELSA:
        return next(module for module in model.modules() if isinstance(module, ELSA))

    default = attn(convert(make()))
    assert {name: getattr(default, name) for name in expected} == expected
    assert (default.group_width, default.scale, default.gamma) == (8, 1, 1)
    chosen = attn(convert(make(), kernel_size=3, lam=1 - expected["lam"], gamma=0.5, group_width=4, qk_scale=0.25))
    assert (chosen.kernel_size, chosen.lam, chosen.gamma) == (3, 1 - expected["lam"], 0.5)
    assert (chosen.group_width, chosen.scale) == (4, 0.25)


@pytest.mark.parametrize(
    ("make", "rates"),
    [(small_swin, {"drop_path_rate": 0.3, "proj_drop_rate": 0.1}), (small_volo, {})],
)
def test_the_blocks_settings_are_kept(make: Any, rates: dict[str, float]) -> None:
    kind = SwinTransformerBlock if make is small_swin else Outlooker
    model = make(attn_drop_rate=0.2, qkv_bias=True, norm_layer=nn.RMSNorm, **rates)
    blocks = [module for module in model.modules() if isinstance(module, kind)]
    convert(model, (0, 1, 2, 3) if make is small_swin else None)
    replaced = [module for module in model.modules() if isinstance(module, ELSABlock)]
    for block, new in zip(blocks, replaced, strict=True):
        assert new.attn.num_heads == block.attn.num_heads
        assert (new.attn.dim, new.attn.dim_v) == (block.attn.proj.out_features, block.attn.proj.in_features)
        assert new.attn.pre_proj.bias is not None
        assert new.attn.attn_drop.p == 0.2
        assert new.attn.proj_drop.p == block.attn.proj_drop.p
        assert new.drop_path.p == getattr(block.drop_path1, "drop_prob", 0.0)
        assert (new.norm1, new.norm2, new.mlp) == (block.norm1, block.norm2, block.mlp)
        assert new.training


def test_head_width_of_its_own() -> None:
    model = convert(small_swin(head_dim=4))
    assert [block.attn.dim_v for block in model.layers[2].blocks] == [16, 16]
    assert model(IMAGES).shape == (2, 5)


def test_features_only() -> None:
    model = convert(small_swin(features_only=True, out_indices=(0, 2)))
    assert kinds(model) == [E, E, W]
    assert [tuple(taken.shape) for taken in model(IMAGES)] == [(2, 16, 24, 8), (2, 4, 6, 32)]
    assert kinds(convert(small_volo(features_only=True)))[0] is E


def test_a_pruned_volo() -> None:
    model = small_volo()
    model.prune_intermediate_layers([0])
    assert kinds(convert(model)) == [E]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torchvision's of its tracer
@pytest.mark.parametrize("make", [small_swin, small_volo])
def test_a_converted_model_can_be_traced(make: Any) -> None:
    model = convert(make()).eval()
    assert torch.equal(torch.fx.symbolic_trace(model)(IMAGES), model(IMAGES))
    extractor = create_feature_extractor(model, ["norm"])
    assert extractor(IMAGES)["norm"].shape[0] == 2


def test_inside_another_module() -> None:
    model = nn.ModuleDict({"image": small_swin(), "depth": small_swin(depths=(1, 1)), "volo": small_volo()})
    convert(model)
    assert kinds(model) == [E, E, E, W, E, W, E, Transformer, Transformer, Transformer]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resize of relative position tables
def test_other_sizes_afterwards() -> None:
    model = convert(small_swin())
    model.set_input_size((128, 64))
    assert model(torch.zeros(1, 3, 128, 64)).shape == (1, 5)


def test_every_new_parameter_trains() -> None:
    model = convert(small_swin(), range(4))
    model(IMAGES).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (small_swin, {"stages": [0, 4]}, ValueError, "convert: stages must be 0 to 3, got 4"),
        (small_swin, {"stages": [-1]}, ValueError, "convert: stages must be 0 to 3, got -1"),
        (small_swin, {"kernel_size": 4}, ValueError, "ELSA: kernel_size must be odd, got 4"),
        (small_swin, {"kernel_size": 0}, ValueError, "ELSA: kernel_size must be a positive integer, got 0"),
        (small_swin, {"lam": 2}, ValueError, "ELSA: lam must be 0 or 1, got 2"),
        (
            small_volo,
            {"stages": [0, 1]},
            ValueError,
            "convert: stages must hold blocks of Outlooker, stage 1 holds Transformer",
        ),
        (
            lambda: convert(small_swin(), [2]),
            {"stages": [0, 2]},
            ValueError,
            "convert: stages must hold blocks of SwinTransformerBlock, stage 2 holds ELSASwinBlock",
        ),
        (
            lambda: convert(small_volo()),
            {},
            ValueError,
            "convert: stages must hold blocks of Outlooker, stage 0 holds ELSABlock",
        ),
        (
            small_swin,
            {"to": "natten"},
            ValueError,
            'convert: to must be "elsa", "neighborhood" or a spec such as "qk+rb softmax window", got \'natten\'',
        ),
        (
            lambda: nn.Sequential(nn.Linear(1, 1)),
            {"stages": [0]},
            TypeError,
            "convert: model must hold a SwinTransformer or VOLO of timm, got Sequential",
        ),
    ],
)
def test_errors_leave_the_model_alone(
    make: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    assert_refused(make(), arguments, error, message)

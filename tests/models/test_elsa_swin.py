"""ELSA-Swin in timm: registration, published settings, and all that timm's Swin can do."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from elsa_ext.models import ELSASwin
from elsa_ext.nn import ELSABlock
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

NAMES = ["elsa_swin_base", "elsa_swin_micro", "elsa_swin_small", "elsa_swin_tiny"]


def blocks(model: ELSASwin) -> list[list[nn.Module]]:
    return [list(stage.blocks) for stage in model.layers]


def test_registered() -> None:
    assert timm.list_models("elsa_swin*") == NAMES
    assert timm.list_models("elsa_swin*", pretrained=True) == []
    with pytest.raises(RuntimeError, match="No pretrained weights exist for elsa_swin_tiny"):
        timm.create_model("elsa_swin_tiny", pretrained=True, device="meta")


@pytest.mark.parametrize("name", NAMES)
def test_own_default_cfg(name: str) -> None:
    model = timm.create_model(name, device="meta")
    cfg = model.default_cfg
    size, classes = ((3, 32, 32), 10) if name == "elsa_swin_micro" else ((3, 224, 224), 1000)
    assert (cfg["architecture"], cfg["input_size"], cfg["num_classes"]) == (name, size, classes)
    assert model.num_classes == classes
    assert model.patch_embed.img_size == size[1:]
    assert model.layers[-1].blocks[0].window_size == cfg["pool_size"]
    assert model.get_submodule(cfg["classifier"]).out_features == classes
    assert isinstance(model.get_submodule(cfg["first_conv"]), nn.Conv2d)
    assert not {"url", "file", "hf_hub_id"} & cfg.keys()


@pytest.mark.parametrize(
    ("name", "depths", "heads", "width", "group_width", "parameters"),
    [
        ("elsa_swin_tiny", (2, 2, 6, 2), (3, 6, 12, 24), 96, 4, 29_140_978),
        ("elsa_swin_small", (2, 2, 18, 2), (3, 6, 12, 24), 96, 8, 52_874_626),
        ("elsa_swin_base", (2, 2, 18, 2), (4, 8, 16, 32), 128, 8, 92_682_464),
    ],
)
def test_published_settings(
    name: str, depths: tuple[int, ...], heads: tuple[int, ...], width: int, group_width: int, parameters: int
) -> None:
    model = timm.create_model(name, device="meta", drop_path_rate=0.3)
    assert sum(p.numel() for p in model.parameters()) == parameters
    *elsa_stages, last = blocks(model)
    assert tuple(map(len, [*elsa_stages, last])) == depths
    for stage, (stage_blocks, stage_heads) in enumerate(zip(elsa_stages, heads, strict=False)):
        for block in stage_blocks:
            assert isinstance(block, ELSABlock)
            attn = block.attn
            assert (attn.dim, attn.dim_v, attn.num_heads) == (width << stage, width << stage, stage_heads)
            assert (attn.kernel_size, attn.lam, attn.gamma, attn.scale) == (7, 0, 1, 1)
            assert (attn.group_width, attn.stride, attn.dilation, attn.groups) == (group_width, 1, 1, 1)
            assert attn.pre_proj.bias is not None
            assert block.mlp.fc1.out_features == 4 * attn.dim
    assert all(isinstance(block, SwinTransformerBlock) and block.window_size == (7, 7) for block in last)
    # Stochastic depth grows evenly over all blocks.
    rates = [block.drop_path.p for stage_blocks in elsa_stages for block in stage_blocks]
    rates += [getattr(block.drop_path1, "drop_prob", 0.0) for block in last]
    assert rates == pytest.approx([0.3 * i / (sum(depths) - 1) for i in range(sum(depths))], abs=1e-6)


def test_micro() -> None:
    model = timm.create_model("elsa_swin_micro").eval()
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    *elsa_stages, last = blocks(model)
    assert all(isinstance(block, ELSABlock) and block.attn.kernel_size == 7 for stage in elsa_stages for block in stage)
    assert all(isinstance(block, SwinTransformerBlock) for block in last)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_overrides() -> None:
    model = timm.create_model(
        "elsa_swin_micro",
        kernel_size=5,
        lam=1,
        gamma=0.5,
        qk_scale=0,
        group_width=2,
        mlp_ratio=2.0,
        qkv_bias=False,
        head_dim=8,
        proj_drop_rate=0.1,
        attn_drop_rate=0.2,
        num_classes=3,
        in_chans=1,
        norm_layer=nn.RMSNorm,
    )
    block = model.layers[1].blocks[0]
    attn = block.attn
    assert (attn.kernel_size, attn.lam, attn.gamma, attn.group_width) == (5, 1, 0.5, 2)
    assert attn.scale == 8**-0.5
    assert attn.dim_v == 8 * attn.num_heads
    assert attn.pre_proj.bias is None
    assert (attn.proj_drop.p, attn.attn_drop.p, block.mlp.drop1.p) == (0.1, 0.2, 0.1)
    assert block.mlp.fc1.out_features == 2 * attn.dim
    assert isinstance(block.norm1, nn.RMSNorm)
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lam": 2}, ValueError, "ELSA: lam must be 0 or 1, got 2"),
        ({"kernel_size": 4}, ValueError, "ELSA: kernel_size must be odd, got 4"),
        ({"kernel": 5}, TypeError, "unexpected keyword argument 'kernel'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        timm.create_model("elsa_swin_micro", **arguments)


def test_initialisation() -> None:
    model = timm.create_model("elsa_swin_tiny", depths=(1, 1, 1, 1))
    block = model.layers[2].blocks[0]
    assert float(block.mlp.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(block.attn.post_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert float(block.attn.ghost_head.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not block.mlp.fc1.bias.any()
    skipped = timm.create_model("elsa_swin_micro", weight_init="skip")
    assert skipped.layers[0].blocks[0].mlp.fc1.bias.any()


def _resized(model: nn.Module) -> Tensor:
    model.set_input_size((256, 320))
    return model(torch.zeros(1, 3, 256, 320))


def _repartitioned(model: nn.Module) -> Tensor:
    model.set_input_size((192, 192), window_size=6, always_partition=True)
    return model(torch.zeros(1, 3, 192, 192))


def _reset(model: nn.Module) -> list[Tensor]:
    model.reset_classifier(7)
    seven = model(torch.zeros(1, 3, 224, 224))
    model.reset_classifier(0, "")
    return [seven, model(torch.zeros(1, 3, 224, 224))]


def _pruned(model: nn.Module) -> Tensor:
    model.prune_intermediate_layers(2)
    return model(torch.zeros(1, 3, 224, 224))


# What is done with a model, and the arguments that make it.
USES: dict[str, tuple[Callable[[nn.Module], Any], dict[str, Any]]] = {
    "logits": (lambda m: m(torch.zeros(2, 3, 224, 224)), {}),
    "256x320": (lambda m: m(torch.zeros(1, 3, 256, 320)), {"img_size": (256, 320)}),
    "230x250": (lambda m: m(torch.zeros(1, 3, 230, 250)), {"img_size": (230, 250)}),
    "any_size": (lambda m: m(torch.zeros(1, 3, 100, 180)), {"dynamic_img_size": True}),
    "set_input_size": (_resized, {}),
    "always_partition": (_repartitioned, {}),
    "forward_intermediates": (lambda m: m.forward_intermediates(torch.zeros(1, 3, 224, 224), indices=2), {}),
    "features_only": (lambda m: m(torch.zeros(1, 3, 256, 320)), {"features_only": True, "img_size": (256, 320)}),
    "some_features": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"features_only": True, "out_indices": (0, 2)}),
    "hooked_features": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"features_only": True, "feature_cls": "hook"}),
    "traced_features": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"features_only": True, "feature_cls": "fx"}),
    "got_features": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"features_only": True, "feature_cls": "getter"}),
    "reset_classifier": (_reset, {}),
    "prune_intermediate_layers": (_pruned, {}),
    "one_channel": (lambda m: m(torch.zeros(1, 1, 224, 224)), {"in_chans": 1}),
    "no_pool": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"num_classes": 0, "global_pool": ""}),
    "pre_logits": (lambda m: m.forward_head(m.forward_features(torch.zeros(1, 3, 224, 224)), pre_logits=True), {}),
}


def shapes(result: Any) -> Any:
    return tuple(result.shape) if isinstance(result, Tensor) else [shapes(part) for part in result]


# timm's resize of relative position tables and its traced features warn.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("use", "arguments"), USES.values(), ids=USES.keys())
def test_does_what_timms_swin_does(use: Callable[[nn.Module], Any], arguments: dict[str, Any]) -> None:
    arguments = {"embed_dim": 12, "depths": (1, 1, 2, 2), "num_classes": 9, **arguments}
    ours, theirs = (
        timm.create_model(name, **arguments).eval() for name in ("elsa_swin_tiny", "swin_tiny_patch4_window7_224")
    )
    with torch.no_grad():
        assert shapes(use(ours)) == shapes(use(theirs))


@pytest.mark.parametrize("size", [(32, 32), (40, 32), (33, 71), (1, 1)])
def test_any_image_size(size: tuple[int, int]) -> None:
    model = timm.create_model("elsa_swin_micro").eval()
    images = torch.randn(1, 3, *size)
    padded = nn.functional.pad(images, (0, size[1] % 2, 0, size[0] % 2))
    assert torch.equal(model(images), model(padded))


@pytest.mark.parametrize("size", [(224, 224), (256, 320), (192, 640)])
def test_features(size: tuple[int, int]) -> None:
    model = timm.create_model("elsa_swin_tiny", features_only=True, embed_dim=12, depths=(1, 1, 2, 2)).eval()
    assert model.feature_info.channels() == [12, 24, 48, 96]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    for taken, channels, stride in zip(model(torch.zeros(1, 3, *size)), (12, 24, 48, 96), (4, 8, 16, 32), strict=True):
        assert taken.shape == (1, size[0] // stride, size[1] // stride, channels)


def test_one_image_size() -> None:
    model = timm.create_model("elsa_swin_micro", dynamic_img_size=False)
    with pytest.raises(AssertionError, match="Input height"):
        model(torch.zeros(1, 3, 40, 32))


def test_parameter_groups() -> None:
    model = timm.create_model("elsa_swin_micro")
    layers = timm.models.group_parameters(model, model.group_matcher())
    assert sum(map(len, layers.values())) == len(list(model.parameters()))
    assert len(layers) == 1 + 4 + 1  # stem, blocks, norm and head
    assert all("relative_position_bias_table" in name for name in model.no_weight_decay())
    timm.models.group_modules(model, model.group_matcher(coarse=True))


def test_gradient_checkpointing_changes_nothing(unemulated: Any) -> None:
    model = timm.create_model("elsa_swin_micro").to(unemulated.device)
    images = torch.randn(2, 3, 32, 32, device=unemulated.device)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        gradients.append(torch.autograd.grad(model(images).square().sum(), list(model.parameters())))
    assert model.layers[0].grad_checkpointing
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_one_step_changes_every_parameter(unemulated: Any) -> None:
    model = timm.create_model("elsa_swin_micro", drop_path_rate=0.1).to(unemulated.device)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    images = torch.randn(8, 3, 32, 32, device=unemulated.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    nn.functional.cross_entropy(model(images), torch.arange(8, device=unemulated.device)).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


def test_multiply_adds() -> None:
    model = timm.create_model("elsa_swin_tiny", device="meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(4.770, abs=5e-4)


def test_copies_and_pickles() -> None:
    model = timm.create_model("elsa_swin_micro").eval()
    images = torch.randn(1, 3, 32, 32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images), model(images))


@pytest.mark.thorough
def test_exports(unemulated: Any) -> None:
    model = timm.create_model("elsa_swin_micro").eval().to(unemulated.device)
    images = torch.randn(2, 3, 32, 32, device=unemulated.device)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    for count in (1, 3):
        images = torch.randn(count, 3, 32, 32, device=unemulated.device)
        assert torch.allclose(exported.module()(images), model(images), atol=1e-5)

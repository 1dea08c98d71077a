"""ELSA-VOLO in timm: registration, published settings, any input size, token labelling, and all that VOLO can do."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from elsa_ext.models import ELSAVOLO
from elsa_ext.nn import ELSABlock
from timm.models._input import get_model_input_config
from timm.models.volo import VOLO, Outlooker, _create_volo
from torch import Tensor, nn

NAMES = [f"elsa_volo_d{size}" for size in range(1, 6)]
SMALL = {"layers": (2, 1, 2, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 4, 4, 4), "num_classes": 7}


def small_model(**changed: Any) -> ELSAVOLO:
    return timm.create_model("elsa_volo_d1", **{**SMALL, **changed}).eval()


def small_volo(**changed: Any) -> VOLO:
    return _create_volo("volo_d1_224", **{**SMALL, **changed}).eval()


def interpolated(positions: Tensor, *grid: int) -> nn.Parameter:
    resized = F.interpolate(positions.permute(0, 3, 1, 2), grid, mode="bicubic", antialias=True)
    return nn.Parameter(resized.permute(0, 2, 3, 1))


def swapped_back(**changed: Any) -> tuple[ELSAVOLO, VOLO]:
    """An ELSA-VOLO that has outlook attention again, and a VOLO of timm with the same weights."""
    ours = small_model(**changed)
    theirs = small_volo(**changed)
    for block, outlooker in zip(ours.network[0], theirs.network[0], strict=True):
        assert isinstance(block, ELSABlock)
        block.attn = copy.deepcopy(outlooker.attn)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_registered() -> None:
    assert timm.list_models("elsa_volo*") == NAMES
    assert timm.list_models("elsa_volo*", pretrained=True) == []
    with pytest.raises(RuntimeError, match="No pretrained weights exist for elsa_volo_d1"):
        timm.create_model("elsa_volo_d1", pretrained=True, device="meta")


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_published_settings(name: str) -> None:
    model = timm.create_model(name, device="meta")
    volo = timm.create_model(name.removeprefix("elsa_") + "_224", device="meta")
    count, volo_count = (sum(p.numel() for p in m.parameters()) for m in (model, volo))
    assert count == pytest.approx(volo_count, rel=0.01)
    assert model.default_cfg["architecture"] == name
    for key in ("input_size", "num_classes", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier"):
        assert model.default_cfg[key] == volo.default_cfg[key]
    for block, outlooker in zip(model.network[0], volo.network[0], strict=True):
        assert isinstance(block, ELSABlock)
        attn = block.attn
        assert (attn.dim, attn.dim_v) == (outlooker.attn.v.in_features,) * 2
        assert attn.num_heads == outlooker.attn.num_heads
        assert (attn.kernel_size, attn.stride, attn.dilation, attn.lam, attn.gamma) == (5, 1, 1, 1, 1)
        assert (attn.group_width, attn.scale, attn.groups, attn.pre_proj.bias) == (8, 1, 1, None)
        assert block.mlp.fc1.out_features == outlooker.mlp.fc1.out_features

    def rest(model: nn.Module) -> dict[str, torch.Size]:
        return {name: p.shape for name, p in model.named_parameters() if not name.startswith("network.0.")}

    assert rest(model) == rest(volo)


def test_overrides() -> None:
    model = small_model(kernel_size=3, lam=0, gamma=0.5, qk_scale=0, group_width=4, qkv_bias=True, attn_drop_rate=0.2)
    attn = model.network[0][0].attn
    assert (attn.kernel_size, attn.lam, attn.gamma, attn.group_width, attn.scale) == (3, 0, 0.5, 4, 8**-0.5)
    assert attn.pre_proj.bias is not None
    assert attn.attn_drop.p == 0.2
    with pytest.raises(ValueError, match="ELSA: kernel_size must be odd, got 4"):
        small_model(kernel_size=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'kernel'"):
        small_model(kernel=4)


def test_initialisation() -> None:
    block = timm.create_model("elsa_volo_d1", layers=(1, 1, 1, 1)).network[0][0]
    assert float(block.attn.post_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert not block.attn.post_proj.bias.any()
    assert float(block.attn.ghost_head[0].detach().std()) == pytest.approx(1, rel=0.05)
    assert float(block.attn.ghost_head[1].detach().std()) == pytest.approx(0.02, rel=0.05)


def test_construction_in_half_precision() -> None:
    model = timm.create_model("elsa_volo_d1", **SMALL, device="cpu", dtype=torch.bfloat16).eval()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model(torch.zeros(1, 3, 240, 224, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_swapped_back_it_is_volo() -> None:
    ours, theirs = swapped_back()
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(ours(images), theirs(images))


def test_training_mode_swapped_back_is_volos() -> None:
    ours, theirs = swapped_back(pos_drop_rate=0.3, attn_drop_rate=0.2, drop_path_rate=0.2)
    images = torch.randn(2, 3, 224, 224)
    results = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        results.append(model.train()(images))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(224, 224), (256, 320), (192, 640), (231, 239), (16, 16)])
def test_any_size_by_interpolation(size: tuple[int, int]) -> None:
    """As timm's VOLO of that size with the position embeddings resampled once."""
    ours, theirs = swapped_back()
    theirs.pos_embed = interpolated(theirs.pos_embed, *(((side + 1) // 2 // 4) // 2 for side in size))
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours(images), theirs(images))


def test_set_input_size() -> None:
    model = small_model(img_size=64)
    model.pos_embed.requires_grad_(False)
    images = torch.randn(1, 3, 96, 128)
    interpolated = model(images)
    model.set_input_size((96, 128))
    assert model.pos_embed.shape == (1, 6, 8, 32)
    assert not model.pos_embed.requires_grad
    torch.testing.assert_close(model(images), interpolated)
    config = get_model_input_config(model)
    assert (config["input_size"], config["fixed_input_size"]) == ((3, 96, 128), False)
    model.prune_intermediate_layers([0])
    model.set_input_size(64)
    assert get_model_input_config(model)["input_size"] == (3, 64, 64)


@pytest.mark.parametrize("mix_token", [False, True])
def test_token_labelling(mix_token: bool) -> None:
    ours, theirs = swapped_back(use_mix_token=mix_token)
    images = torch.randn(2, 3, 96, 160)
    theirs.pos_embed = interpolated(theirs.pos_embed, 6, 10)
    results = []
    for model in (ours, theirs):
        torch.manual_seed(4)
        results.append(model.train().forward_train(images))
    (token, dense, box), (expected_token, expected_dense, expected_box) = results
    assert box == expected_box
    assert any(box) == mix_token
    assert ours.head(token).shape == (2, 7)
    assert dense.shape == (2, 60, 7)
    torch.testing.assert_close(token, expected_token)
    torch.testing.assert_close(dense, expected_dense)


def test_token_labelling_trains_every_parameter() -> None:
    model = small_model(use_mix_token=True).train()
    token, dense, _ = model.forward_train(torch.randn(4, 3, 64, 64))
    (model.head(token).square().mean() + dense.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.thorough
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("indices", [None, 2, [0], [1, 3], [0, 2]])
def test_forward_intermediates(indices: int | list[int] | None, stop_early: bool, norm: bool) -> None:
    ours, theirs = swapped_back()
    images = torch.randn(1, 3, 224, 224)
    (out, maps), (expected_out, expected_maps) = (
        model.forward_intermediates(images, indices, norm=norm, stop_early=stop_early) for model in (ours, theirs)
    )
    assert torch.equal(out, expected_out)
    assert len(maps) == len(expected_maps)
    assert all(map(torch.equal, maps, expected_maps))
    alone = ours.forward_intermediates(images, indices, norm=norm, stop_early=stop_early, intermediates_only=True)
    assert all(map(torch.equal, alone, maps))
    if not stop_early:
        assert torch.equal(out, ours.forward_features(images))


def test_intermediates_in_another_format() -> None:
    with pytest.raises(AssertionError, match="Output format must be NCHW"):
        small_model().forward_intermediates(torch.zeros(1, 3, 64, 64), output_fmt="NHWC")


@pytest.mark.parametrize("size", [(224, 224), (256, 320), (192, 640)])
def test_features(size: tuple[int, int]) -> None:
    model = timm.create_model("elsa_volo_d1", **SMALL, features_only=True, out_indices=(0, 1, 2, 3)).eval()
    assert model.feature_info.channels() == [16, 32, 32, 32]
    assert model.feature_info.reduction() == [8, 16, 16, 16]
    maps = model(torch.zeros(2, 3, *size))
    for taken, channels, stride in zip(maps, (16, 32, 32, 32), (8, 16, 16, 16), strict=True):
        assert taken.shape == (2, channels, size[0] // stride, size[1] // stride)


def _pruned(model: nn.Module) -> Any:
    model.prune_intermediate_layers([0, 1])
    return model.forward_intermediates(torch.zeros(1, 3, 224, 224), [0, 1], intermediates_only=True)


def _pruned_to_the_outlookers(model: nn.Module) -> Any:
    model.prune_intermediate_layers([0])
    return model(torch.zeros(1, 3, 224, 224))


def _reset(model: nn.Module) -> list[Tensor]:
    model.reset_classifier(5)
    five = model(torch.zeros(1, 3, 224, 224))
    model.reset_classifier(0, "avg")
    return [five, model(torch.zeros(1, 3, 224, 224))]


# What is done with a model, and the arguments that make it.
USES: dict[str, tuple[Callable[[nn.Module], Any], dict[str, Any]]] = {
    "logits": (lambda m: m(torch.zeros(2, 3, 224, 224)), {}),
    "256x320": (lambda m: m(torch.zeros(1, 3, 256, 320)), {"img_size": (256, 320)}),
    "no_aux_head": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"use_aux_head": False}),
    "no_class_token": (
        lambda m: m(torch.zeros(1, 3, 224, 224)),
        {"post_layers": None, "use_aux_head": False, "global_pool": "avg"},
    ),
    "prune": (_pruned, {}),
    "prune_to_stage_0": (_pruned_to_the_outlookers, {}),
    "reset_classifier": (_reset, {}),
    "one_channel": (lambda m: m(torch.zeros(1, 1, 224, 224)), {"in_chans": 1}),
    "no_pool": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"num_classes": 0, "global_pool": ""}),
    "pre_logits": (lambda m: m.forward_head(m.forward_features(torch.zeros(1, 3, 224, 224)), pre_logits=True), {}),
    "features_only": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"features_only": True}),
    "two_outlook_stages": (lambda m: m(torch.zeros(1, 3, 224, 224)), {"outlook_attention": (True, True, False, False)}),
}


def shapes(result: Any) -> Any:
    return tuple(result.shape) if isinstance(result, Tensor) else [shapes(part) for part in result]


@pytest.mark.parametrize(("use", "arguments"), USES.values(), ids=USES.keys())
def test_does_what_timms_volo_does(use: Callable[[nn.Module], Any], arguments: dict[str, Any]) -> None:
    ours, theirs = small_model(**arguments), small_volo(**arguments)
    assert not any(isinstance(module, Outlooker) for module in ours.modules())
    with torch.no_grad():
        assert shapes(use(ours)) == shapes(use(theirs))


def test_parameter_groups() -> None:
    model = small_model()
    assert model.no_weight_decay() == {"pos_embed", "cls_token"}
    layers = timm.models.group_parameters(model, model.group_matcher())
    assert sum(map(len, layers.values())) == len(list(model.parameters()))
    timm.models.group_modules(model, model.group_matcher(coarse=True))


def test_gradient_checkpointing_changes_nothing(unemulated: Any) -> None:
    model = small_model().to(unemulated.device)
    images = torch.randn(2, 3, 64, 64, device=unemulated.device)
    gradients: list[tuple[Tensor, ...]] = []
    passes: list[nn.Module] = []
    model.network[0].register_forward_pre_hook(lambda module, args: passes.append(module))
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        gradients.append(torch.autograd.grad(model(images).square().sum(), list(model.parameters())))
    assert len(passes) == 1 + 2  # the blocks run again in the backward
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


def test_copies_and_pickles() -> None:
    model = small_model()
    images = torch.randn(1, 3, 64, 64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images), model(images))

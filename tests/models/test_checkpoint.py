"""``load_official_checkpoint``: official numbers, strictness, and a model left alone on failure."""

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import golden
import pytest
import restated
import timm
import torch
from elsa_ext.models import load_official_checkpoint
from elsa_ext.models.checkpoint import convert_official
from golden import Case, assert_agrees
from torch import Tensor, nn
from torch.func import functional_call

DEPTHS, HEADS = (1, 2, 2), (1, 2, 4)


@pytest.mark.thorough
@pytest.mark.parametrize("case", golden.cases("elsa_swin"))
def test_official_numbers(case: Case, unemulated_formula_slow: Any) -> None:
    device = unemulated_formula_slow.device
    model = timm.create_model(case.settings["model"]).double().eval()
    official = case.state_dict()
    load_official_checkpoint(model, official)
    # The conversion is made of differentiable steps: gradients come out by their official names.
    parameters = {name: official[name].to(device).requires_grad_() for name in case.settings["grad_norm"]}
    pooled: list[Tensor] = []
    model.head.global_pool.register_forward_hook(lambda module, args, out: pooled.append(out))
    model.to(device)
    size = case.settings["image_size"]
    x = case.fill("input", (1, 3, size, size)).to(device)
    converted = convert_official(parameters)
    assert all(torch.equal(tensor, converted[name]) for name, tensor in model.state_dict().items())

    logits = functional_call(model, converted, x)
    assert_agrees("logits", logits, case.arrays["logits"])
    assert_agrees("pooled_features", pooled[0], case.arrays["pooled_features"])
    grad = case.fill("grad", logits.shape).to(device)
    grads = torch.autograd.grad(logits, list(parameters.values()), grad)
    for (name, norm), grad in zip(case.settings["grad_norm"].items(), grads, strict=True):
        assert float(grad.norm()) == pytest.approx(norm, rel=1e-9), name


def small_model(**changed: Any) -> nn.Module:
    """A model whose last stage has one window, of 4x6."""
    arguments = {
        "embed_dim": 8,
        "depths": DEPTHS,
        "num_heads": HEADS,
        "img_size": (64, 96),
        "window_size": 6,
        "num_classes": 5,
        "kernel_size": 3,
        "dtype": torch.float64,
    }
    return timm.create_model("elsa_swin_tiny", **{**arguments, **changed}).eval()


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights of ``model`` as the official code would name and order them, buffers included."""
    official = {}
    for name, tensor in model.state_dict().items():
        stage = name.split(".")[1]
        if "downsample" in name:
            name = name.replace(f"layers.{stage}", f"layers.{int(stage) - 1}")
        elif "relative_position_bias_table" in name:
            name, tensor = name.replace("relative_position_bias_table", "rb"), tensor.flip(0).T
            official[name.replace("rb", "relative_id")] = torch.zeros(24 * 24, dtype=torch.long)
        elif "qkv" in name:
            query, key, value = tensor.chunk(3)
            name, tensor = name.replace("qkv", "pre_proj"), torch.cat([value, query, key])
        elif ".attn.proj." in name:
            name = name.replace("proj", "post_proj")
        official[name.replace("head.fc", "head")] = tensor.clone()
    official["layers.2.blocks.1.attn_mask"] = torch.zeros(1)
    return official


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "state_dict_ema", "module."])
def test_formula(wrapped: str, backend: Any) -> None:
    official = official_state_dict(randomise(small_model()))
    checkpoint: dict[str, Any] = official
    if wrapped == "module.":
        checkpoint = {"state_dict": {f"module.{name}": tensor for name, tensor in official.items()}, "epoch": 3}
    elif wrapped != "plain":
        checkpoint = {wrapped: OrderedDict(official), "epoch": 3}
    model = small_model()
    load_official_checkpoint(model, checkpoint)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected = restated.elsa_swin(official, images, depths=DEPTHS, num_heads=HEADS)
    model.to(backend.device)
    assert_agrees("logits", model(images.to(backend.device)), expected)


def test_file_of_the_official_training_script(tmp_path: Path) -> None:
    source = randomise(small_model())
    path = tmp_path / "model_best.pth.tar"
    arguments = argparse.Namespace(model="elsa_swin_tiny", lr=1e-3, aug_splits=0, mean=None, betas=(0.9, 0.999))
    other = {name: tensor * 0 for name, tensor in official_state_dict(source).items()}
    content = {"state_dict": official_state_dict(source), "state_dict_ema": other, "args": arguments, "metric": 82.7}
    torch.save(content, path)
    model = small_model()
    load_official_checkpoint(model, path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )
    load_official_checkpoint(model, str(path))


def test_file_with_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": official_state_dict(small_model()), "hook": Path("x")}, path)
    with pytest.raises(pickle.UnpicklingError, match=r"evil\.pth holds more than weights, pathlib\.\w*Path, "):
        load_official_checkpoint(small_model(), path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_official_checkpoint(small_model(), tmp_path / "nowhere.pth")


def drop(official: dict[str, Tensor], *names: str) -> None:
    for name in names:
        del official[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: drop(o, "layers.0.blocks.0.norm1.bias", "layers.2.blocks.1.attn.rb"),
            r"does not fit the model; missing: layers\.0\.blocks\.0\.norm1\.bias, "
            r"layers\.2\.blocks\.1\.attn\.relative_position_bias_table.*; "
            r"left over: layers\.2\.blocks\.1\.attn\.pre_proj\.weight",
        ),
        (
            lambda o: o.update(absolute_pos_embed=torch.zeros(1)),
            r"does not fit the model; left over: absolute_pos_embed$",
        ),
        (
            lambda o: o.update({"patch_embed.proj.weight": torch.zeros(8, 1, 4, 4)}),
            r"model; of another shape: patch_embed\.proj\.weight \(8, 1, 4, 4\) for \(8, 3, 4, 4\)$",
        ),
        (
            lambda o: o.update({"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}),
            r"the checkpoint has 7 classes, the model 5: create the model with num_classes=7, load, then call "
            r"model\.reset_classifier\(5\)$",
        ),
        (lambda o: drop(o, "head.weight", "head.bias"), "the checkpoint has 0 classes, the model 5: create"),
        (lambda o: o.update(epoch=3), r"expected a module, .* got a dict with \d+ tensors and 'epoch': int$"),
        (lambda o: o.update(model=[1, 2]), r"expected a module, .* got a dict with \d+ tensors and 'model': list$"),
    ],
    ids=["missing", "left_over", "shape", "classes", "no_head", "not_a_tensor", "not_a_dict"],
)
def test_misfit_is_named_and_changes_nothing(change: Any, message: str) -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    official = official_state_dict(randomise(small_model()))
    change(official)
    with pytest.raises(ValueError, match=f"load_official_checkpoint: .*{message}"):
        load_official_checkpoint(model, official)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_model_without_classes() -> None:
    official = official_state_dict(randomise(small_model()))
    with pytest.raises(ValueError, match=r"the checkpoint has 5 classes, the model 0: create .* num_classes=5"):
        load_official_checkpoint(small_model(num_classes=0), official)


def test_long_lists_are_cut() -> None:
    with pytest.raises(ValueError, match=r"missing: (\S+, ){9}\S+ and \d+ more$"):
        load_official_checkpoint(small_model(), {})


def test_given_state_dict_is_not_changed() -> None:
    official = official_state_dict(small_model())
    before = {name: tensor.clone() for name, tensor in official.items()}
    load_official_checkpoint(randomise(small_model()), official)
    assert official.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in official.items())


def test_own_state_dict_stays_as_it_is() -> None:
    own = small_model().state_dict()
    converted = convert_official(own)
    assert converted.keys() == own.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize("name", ["official", "own"])
def test_create_model_reads_a_file(name: str, tmp_path: Path) -> None:
    source = randomise(small_model())
    path = tmp_path / "weights.pth"
    torch.save(official_state_dict(source) if name == "official" else source.state_dict(), path)
    model = small_model(pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5})
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())

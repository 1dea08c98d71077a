"""``load_volo_checkpoint``: what is loaded, what is named, and a model left alone on failure."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from elsa_ext.models import convert, load_volo_checkpoint
from elsa_ext.nn import ELSA
from safetensors.torch import save_file
from timm.models.volo import _create_volo
from torch import Tensor, nn

SMALL = {"layers": (2, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 4, 4, 4), "num_classes": 5}


def elsa_volo(**changed: Any) -> nn.Module:
    return timm.create_model("elsa_volo_d1", **{**SMALL, **changed})


def volo(**changed: Any) -> nn.Module:
    return _create_volo("volo_d1_224", **{**SMALL, **changed})


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def as_dict(state_dict: dict[str, Tensor], folder: Path) -> Any:
    return state_dict


def as_ema(state_dict: dict[str, Tensor], folder: Path) -> Any:
    return {"epoch": 3, "state_dict_ema": {f"module.{name}": tensor for name, tensor in state_dict.items()}}


def as_file(state_dict: dict[str, Tensor], folder: Path) -> Any:
    torch.save({"model": state_dict}, folder / "volo.pth")
    return folder / "volo.pth"


def as_safetensors(state_dict: dict[str, Tensor], folder: Path) -> Any:
    save_file(state_dict, folder / "volo.safetensors")
    return str(folder / "volo.safetensors")


@pytest.mark.parametrize("given", [as_dict, as_ema, as_file, as_safetensors])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_all_but_the_elsa_layers(given: Any, qkv_bias: bool, tmp_path: Path) -> None:
    model, source = elsa_volo(qkv_bias=qkv_bias), volo(qkv_bias=qkv_bias)
    before, theirs = copied(model), copied(source)
    untrained = load_volo_checkpoint(model, given(theirs, tmp_path))
    layers = [name for name, module in model.named_modules() if isinstance(module, ELSA)]
    assert layers == ["network.0.0.attn", "network.0.1.attn"]
    assert untrained == [name for name in before if name.startswith(tuple(f"{layer}." for layer in layers))]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in untrained else theirs[name]), name


def test_logits_are_volos_with_outlook_attention_back() -> None:
    model, source = elsa_volo().eval(), volo().eval()
    load_volo_checkpoint(model, source.state_dict())
    for block, outlooker in zip(model.network[0], source.network[0], strict=True):
        block.attn = outlooker.attn
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(model(images), source(images))


def test_a_converted_volo() -> None:
    model = convert(volo(outlook_attention=(True, True, False, False)), [1])
    source = copied(volo(outlook_attention=(True, True, False, False)))
    untrained = load_volo_checkpoint(model, source)
    assert {name.rsplit(".attn.", 1)[0] for name in untrained if ".attn." in name}
    assert all(name.startswith("network.2.0.attn.") for name in untrained)
    assert torch.equal(model.network[0][0].attn.v.weight, source["network.0.0.attn.v.weight"])


def test_position_embeddings_are_resampled() -> None:
    model, source = elsa_volo(img_size=(64, 96)), volo().eval()
    given = copied(source)
    load_volo_checkpoint(model, given)
    assert model.pos_embed.shape == (1, 4, 6, 32)
    assert given["pos_embed"].shape == (1, 14, 14, 32)
    expected = nn.functional.interpolate(source.pos_embed.permute(0, 3, 1, 2), (4, 6), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.pos_embed, expected.permute(0, 2, 3, 1))


def without(state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: tensor for other, tensor in state_dict.items() if other != name}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            lambda: copied(volo(num_classes=9)),
            "the checkpoint has 9 classes, the model 5: create the model with",
        ),
        (lambda: without(copied(volo()), "norm.weight"), "does not fit the model; missing: norm.weight$"),
        (lambda: without(copied(volo()), "aux_head.bias"), "does not fit the model; missing: aux_head.bias$"),
        (lambda: copied(elsa_volo()), "left over: network.0.0.attn.ghost_head, network.0.0.attn.pre_proj.weight, "),
        (lambda: {**copied(volo()), "pos_embed": torch.zeros(1, 196, 32)}, r"pos_embed \(1, 196, 32\) for \(1, 14, 14"),
        (lambda: copied(volo(stem_hidden_dim=32)), "of another shape: patch_embed.conv.0.weight "),
        (lambda: {"epoch": 3}, "expected a module, a dict of tensors, or .*, got a dict with 'epoch': int"),
        (lambda: 3, "expected a module, a dict of tensors, or .*, got int"),
    ],
)
def test_errors_leave_the_model_alone(given: Any, message: str) -> None:
    model = elsa_volo()
    before = copied(model)
    with pytest.raises(ValueError, match=f"^load_volo_checkpoint: .*{message}"):
        load_volo_checkpoint(model, given())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_volo_checkpoint(elsa_volo(), tmp_path / "none.pth")

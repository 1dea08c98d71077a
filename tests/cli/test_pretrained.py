"""``--pretrained``: whose weights a training begins with."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from elsa_ext.cli.checkpoint import load
from elsa_ext.cli.train.pretrained import load_pretrained, renamed
from elsa_ext.models import convert
from models.test_checkpoint import official_state_dict, small_model
from torch import nn

from .conftest import Result, write_images

Command = Callable[..., Result]


def test_weights_of_a_run(command: Command, trained: Path, tmp_path: Path) -> None:
    """All but the classifier for other classes; to go on with the run needs the file no more."""
    shutil.copy(trained / "checkpoint.pt", tmp_path / "first.pt")
    images = write_images(tmp_path / "images", "red tan lime", 2)
    run = tmp_path / "run"
    arguments = ("--image-size", 32, "--lr", 1e-12, "--epochs", 1, "--pretrained", tmp_path / "first.pt")
    result = command("train", "--data", images, *arguments, "--output", run)
    assert result.code == 0
    assert "as they were before: head.fc.weight, head.fc.bias" in result.out
    found, expected = (load(str(path / "checkpoint.pt")).state_dict for path in (run, trained))
    for name, tensor in expected.items():
        if not name.startswith("head."):
            torch.testing.assert_close(found[name], tensor)
    (tmp_path / "first.pt").unlink()
    assert command("train", "--resume", run).code == 0


def test_weights_of_timm(tmp_path: Path) -> None:
    """ELSA stays as it was; what is of timm's Swin comes from there, of another window size, too."""
    shape = {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 4}
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=8, **shape)
    torch.save({"state_dict_ema": swin.state_dict(), "epoch": 3}, tmp_path / "swin.pth")
    model = timm.create_model("elsa_swin_micro", **{**shape, "num_classes": 2})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = load_pretrained(model, str(tmp_path / "swin.pth"))
    after = model.state_dict()
    theirs = swin.state_dict()
    assert torch.equal(after["layers.0.blocks.0.mlp.fc1.weight"], theirs["layers.0.blocks.0.mlp.fc1.weight"])
    assert torch.equal(after["head.fc.weight"], before["head.fc.weight"])
    kept = [
        name
        for name in after
        if torch.equal(after[name], before[name]) and not torch.equal(after[name], theirs.get(name, after[name] + 1))
    ]
    assert any(".attn." in name for name in kept) and "as they were before" in told


def test_weights_of_timm_for_other_operators(tmp_path: Path) -> None:
    """They are those of `convert`; what an operator has beside them stays as it was, and is named."""
    shape = {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 2}
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, **shape)
    nn.init.normal_(swin.layers[0].blocks[0].attn.relative_position_bias_table)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    for spec, kept in (
        ("qk+rb softmax window", ""),
        ("qr none neighborhood", "r_key"),
        ("rb none window heads=C", "r_bias"),
    ):
        model = timm.create_model("elsa_swin_micro", spec=spec, kernel_size=3, **shape)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        told = load_pretrained(model, str(tmp_path / "swin.pth"))
        size = None if "window" in spec else 3
        expected = convert(copy.deepcopy(swin), [0], to=spec, kernel_size=size).state_dict()
        for name, tensor in model.state_dict().items():
            stays = bool(kept) and name.endswith(kept)
            torch.testing.assert_close(tensor, before[name] if stays else expected[name], rtol=0, atol=0)
        assert told.endswith(f"; as they were before: layers.0.blocks.0.attn.{kept}" if kept else "swin.pth")


def test_official_weights(tmp_path: Path) -> None:
    source, model = small_model(), small_model()
    torch.save(official_state_dict(source), tmp_path / "official.pth")
    assert " as they were before" not in load_pretrained(model, str(tmp_path / "official.pth"))
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_position_embeddings_of_another_size() -> None:
    model = nn.Module()
    model.pos_embed = nn.Parameter(torch.zeros(1, 4, 6, 8))
    embeddings = torch.randn(1, 1, 1, 8)
    found = renamed(model, {"pos_embed": embeddings})["pos_embed"]
    torch.testing.assert_close(found, embeddings.expand(1, 4, 6, 8))


def test_weights_of_another_model(tmp_path: Path) -> None:
    model = timm.create_model("resnet10t", num_classes=2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = timm.create_model("resnet14t", num_classes=2)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(Exception, match="does not fit the model: layer"):
        load_pretrained(model, str(tmp_path / "other.pth"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])

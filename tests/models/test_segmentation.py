"""ELSA-Swin as the encoder of segmentation_models_pytorch, wherever timm's Swin can be one, and the example."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import nn

EXAMPLE = Path(__file__).parents[2] / "docs" / "segmentation.py"
OURS, THEIRS = "tu-elsa_swin_tiny", "tu-swin_tiny_patch4_window7_224"
SMALL = {"embed_dim": 12, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 2, 4), "drop_path_rate": 0.0}


def small_model(decoder: str, encoder: str = OURS, **encoder_arguments: Any) -> nn.Module:
    return smp.create_model(
        decoder, encoder_name=encoder, encoder_weights=None, classes=3, **{**SMALL, **encoder_arguments}
    )


@pytest.mark.thorough
@pytest.mark.parametrize(("encoder", "arguments"), [(OURS, {}), (THEIRS, {"dynamic_img_size": True})])
@pytest.mark.parametrize(
    "decoder", ["upernet", "fpn", "unet", "unetplusplus", "linknet", "pspnet", "manet", "segformer"]
)
def test_decoders(decoder: str, encoder: str, arguments: dict[str, bool]) -> None:
    model = small_model(decoder, encoder, **arguments).eval()
    for height, width in ((96, 160), (224, 224)):
        with torch.no_grad():
            assert model(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)


@pytest.mark.parametrize("encoder", [OURS, THEIRS])
def test_a_size_chosen_in_advance(encoder: str) -> None:
    model = small_model("fpn", encoder, img_size=(96, 160)).eval()
    assert model(torch.rand(1, 3, 96, 160)).shape == (1, 3, 96, 160)


def test_sizes_that_32_does_not_divide() -> None:
    # Unet alone pads its maps to one another.
    assert small_model("unet").eval()(torch.rand(1, 3, 100, 160)).shape == (1, 3, 100, 160)
    with pytest.raises(RuntimeError, match="divisible by 32"):
        small_model("fpn").eval()(torch.rand(1, 3, 100, 160))


@pytest.mark.parametrize(("encoder", "arguments"), [(OURS, {}), (THEIRS, {"dynamic_img_size": True})])
def test_shallower_encoder_and_other_channels(encoder: str, arguments: dict[str, bool]) -> None:
    model = small_model("unet", encoder, encoder_depth=4, decoder_channels=(32, 16, 16, 8), in_channels=1, **arguments)
    assert model.eval()(torch.rand(1, 1, 64, 96)).shape == (1, 3, 64, 96)


def test_encoder_passes_on_the_features_of_the_model() -> None:
    encoder = small_model("upernet").encoder.eval()
    images = torch.rand(1, 3, 64, 96)
    same, half, *features = encoder(images)
    assert same is images
    assert half.shape == (1, 0, 32, 48)
    assert encoder.out_channels == [3, 0, 12, 24, 48, 96]
    for feature, expected in zip(features, encoder.model(images), strict=True):
        assert torch.equal(feature, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    "decoder",
    [pytest.param("unet", marks=pytest.mark.thorough)]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("upernet", "fpn")],
)
def test_training(decoder: str) -> None:
    model = small_model(decoder)
    targets = torch.zeros(2, 64, 96, dtype=torch.long)
    targets[:, 20:, 40:] = 1
    images = torch.rand(2, 3, 64, 96) + targets[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    history = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert history[-1] < 0.5 * history[0]


@pytest.mark.thorough
def test_published_size() -> None:
    ours, theirs = (
        smp.create_model("upernet", encoder_name=name, encoder_weights=None, classes=150) for name in (OURS, THEIRS)
    )
    assert sum(p.numel() for p in ours.encoder.parameters()) == 29_140_978 - 769_000 - 1_536  # less head and norm
    assert ours.encoder.out_channels == theirs.encoder.out_channels == [3, 0, 96, 192, 384, 768]
    ours_decoder, theirs_decoder = (
        {name: p.shape for name, p in model.decoder.named_parameters()} for model in (ours, theirs)
    )
    assert ours_decoder == theirs_decoder


@pytest.mark.slow
def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "tissue.png"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", "2", "--output", str(picture)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[:3]] == ["step", "1", "2"]
    assert table[3].startswith("trained on: ")
    assert " of the pixels right, IoU background " in table[4]
    assert Image.open(picture).convert("RGB").getextrema() != ((255, 255),) * 3
    assert list(tmp_path.iterdir()) == [picture]


def test_example_refuses_a_missing_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--output", str(tmp_path / "nowhere" / "picture.png")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"error: --output: no folder {tmp_path / 'nowhere'}\n")

"""Automatic mixed precision and half-precision weights, both families."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

MODELS = {
    "elsa_swin_micro": {"depths": (1, 1, 1)},
    "elsa_volo_d1": {
        "layers": (1, 1, 1, 1),
        "embed_dims": (16, 32, 32, 32),
        "num_heads": (2, 4, 4, 4),
        "num_classes": 10,
        "img_size": 16,
    },
}
# Relative L2 error of the logits: a few units in the last place.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 2.5e-3}

pytestmark = [
    pytest.mark.parametrize("name", MODELS),
    pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch.")),
]


def model_and_images(name: str, device: str) -> tuple[nn.Module, torch.Tensor]:
    return timm.create_model(name, **MODELS[name]).to(device), torch.randn(4, 3, 16, 16, device=device)


def error(logits: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.dist(logits.float(), expected) / expected.norm())


def test_autocast_inference(name: str, dtype: torch.dtype, unemulated: Any) -> None:
    model, images = model_and_images(name, unemulated.device)
    model.eval()
    with torch.inference_mode():
        expected = model(images)
        with torch.autocast(unemulated.device, dtype):
            logits = model(images)
    assert logits.dtype == dtype
    assert 0 < error(logits, expected) < TOLERANCE[dtype]


@pytest.mark.thorough
def test_autocast_training(name: str, dtype: torch.dtype, unemulated_formula_slow: Any) -> None:
    device = unemulated_formula_slow.device
    model, images = model_and_images(name, device)
    targets = torch.arange(4, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast(device, dtype):
            loss = F.cross_entropy(model(images), targets)
        scaler.scale(loss).backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.dtype == torch.float32, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.thorough
def test_half_precision_weights(name: str, dtype: torch.dtype, unemulated: Any) -> None:
    model, images = model_and_images(name, unemulated.device)
    expected = model.eval()(images).detach()
    model.to(dtype)
    logits = model(images.to(dtype))
    assert logits.dtype == dtype
    assert 0 < error(logits.detach(), expected) < TOLERANCE[dtype]
    model.train()
    F.cross_entropy(model(images.to(dtype)), torch.arange(4, device=unemulated.device)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.dtype == dtype, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name

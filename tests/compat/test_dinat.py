"""DiNAT on ``compat.natten``: the numbers that transformers 4.48.3 has on natten 0.17.4, and training."""

import importlib.metadata
from typing import Any

import golden
import pytest
import torch
import torch.nn.functional as F
from compat.dinat import Dinat, random_weight
from golden import Case, assert_agrees


@pytest.mark.parametrize("case", golden.cases("dinat"))
def test_numbers_of_transformers_on_natten(case: Case) -> None:
    config = dict(case.settings)
    images = case.fill("input", (2, 3, *config.pop("size"))).requires_grad_()
    model = Dinat(config, golden.parameter)
    logits = model(images)
    assert_agrees("logits", logits, case.arrays["logits"])
    logits.backward(case.fill("grad", logits.shape))
    assert_agrees("grad_input", images.grad, case.arrays["grad_input"])
    tables = [name.removeprefix("grad.") for name in case.arrays if name.startswith("grad.")]
    assert len(tables) == sum(config["depths"])
    for name in tables:
        assert_agrees(name, model.weights[name].grad, case.arrays[f"grad.{name}"])


def _transformers_is_here() -> bool:
    try:
        return importlib.metadata.version("transformers").startswith("4.48.")
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.thorough
@pytest.mark.skipif(not _transformers_is_here(), reason="transformers 4.48, which fights with timm, is not installed")
@pytest.mark.parametrize("case", golden.cases("dinat"))
def test_transformers_itself(case: Case, as_natten: Any) -> None:
    as_natten("0.17")
    from transformers import DinatConfig, DinatForImageClassification

    config = dict(case.settings)
    images = case.fill("input", (2, 3, *config.pop("size"))).requires_grad_()
    model = DinatForImageClassification(DinatConfig(**config, drop_path_rate=0.0)).double().eval()
    golden.fill_state_dict(model.state_dict())
    logits = model(images).logits
    assert_agrees("logits", logits, case.arrays["logits"])
    logits.backward(case.fill("grad", logits.shape))
    assert_agrees("grad_input", images.grad, case.arrays["grad_input"])


@pytest.mark.thorough
def test_training_in_single_precision() -> None:
    """Another configuration: odd map sizes, a level that is smaller than its dilated neighbourhood."""
    config = {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "kernel_size": 7, "dilations": [[2], [1, 3]]}
    model = Dinat({**config, "num_labels": 3}, random_weight)
    images, labels = torch.randn(4, 3, 68, 60), torch.tensor([0, 1, 2, 0])
    model(images)
    optimizer = torch.optim.Adam(model.weights.values(), 3e-3)
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(weight.grad is not None and weight.grad.any() for weight in model.weights.values())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.7 * losses[0]

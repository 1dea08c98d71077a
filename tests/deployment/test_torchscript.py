"""TorchScript: modules and models, scripted and traced, in the process that made them and in one without elsa_ext."""

from pathlib import Path
from typing import Any

import elsa_ext
import pytest
import torch
from deployment import models
from elsa_ext.nn import ELSA, ELSABlock
from elsa_ext.nn.layers import DropPath
from torch import Tensor, nn

pytestmark = models.IGNORED

RUNS = 3  # the first ones profile, the last one runs the optimised graph


def check_as_eager(scripted: nn.Module, model: nn.Module, given: Tensor) -> None:
    """Compare results and the gradients of all parameters."""
    expected = model(given)
    expected_grads = torch.autograd.grad(expected.square().mean(), list(model.parameters()))
    for _ in range(RUNS):
        out = scripted(given)
        torch.testing.assert_close(out, expected)
        grads = torch.autograd.grad(out.square().mean(), list(scripted.parameters()))
        torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lam": 0},
        {"gamma": 0},
        {"lam": 0, "gamma": 0},
        {"gamma": 0.5, "qkv_bias": True},
        {"stride": 2, "dilation": 2, "groups": 2, "qk_scale": 1},
    ],
    ids=str,
)
def test_scripted_layer(options: dict[str, Any]) -> None:
    layer = ELSA(12, 2, kernel_size=3, group_width=4, **options)
    check_as_eager(torch.jit.script(layer), layer, torch.randn(2, 6, 7, 12))


def test_scripted_layer_checks_its_input() -> None:
    with pytest.raises(torch.jit.Error, match=r"ELSA: the input must have shape \(B, H, W, 12\), got \[2, 6, 7, 8\]"):
        torch.jit.script(ELSA(12, 2))(torch.randn(2, 6, 7, 8))


@pytest.mark.parametrize("training", [True, False])
def test_scripted_block(training: bool) -> None:
    block = ELSABlock(12, 3, num_heads=2, drop_path=0 if training else 0.5).train(training)
    check_as_eager(torch.jit.script(block), block, torch.randn(2, 6, 7, 12))


def test_scripted_block_drops_whole_samples() -> None:
    dropped = torch.jit.script(DropPath(0.25).train())(torch.ones(64, 3, 5))
    samples = dropped.flatten(1)
    assert torch.equal(samples, samples[:, :1].expand_as(samples))
    torch.testing.assert_close(samples.unique(), torch.tensor([0, 4 / 3]))


def test_scripted_functions_are_the_ops() -> None:
    def attend(query: Tensor, conv: Tensor, proj: Tensor) -> Tensor:
        attn = elsa_ext.hadamard_attention(query, query, conv, None, proj, None, heads=2)
        return elsa_ext.ghost_head(query, attn, kernel_size=3)

    scripted = torch.jit.script(attend)
    assert [node.kind() for node in scripted.graph.nodes() if "elsa" in node.kind()] == [
        "elsa::hadamard_attention",
        "elsa::ghost_head",
    ]
    given = torch.randn(2, 8, 6, 7), torch.randn(8, 4, 3, 3), torch.randn(18, 8)
    torch.testing.assert_close(scripted(*given), attend(*given), rtol=0, atol=0)


@pytest.mark.parametrize("name", models.MODELS)
def test_scripted_model_trains(name: str) -> None:
    model = models.create(name).train()
    check_as_eager(torch.jit.script(model), model, models.images(model, 2))


@pytest.mark.parametrize("name", models.COMPILED)
@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_served(name: str, how: str, tmp_path: Path) -> None:
    model = models.create(name)
    made = torch.jit.trace(model, models.images(model, 3)) if how == "trace" else torch.jit.script(model)
    if how == "freeze":
        made = torch.jit.freeze(made)
    made.save(tmp_path / "model.pt")
    models.check_served("torch.jit.load", tmp_path / "model.pt", model)

"""torch.compile of whole models: one graph, the same results and gradients as in eager mode."""

from collections.abc import Iterator

import pytest
import torch
from deployment import models

pytestmark = models.IGNORED


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._inductor.config.patch(fx_graph_cache=False):  # what an earlier run compiled would hide an error
        yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_inference(name: str) -> None:
    model = models.create(name)
    given = models.images(model, 2)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(given), model(given), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_training_step(name: str) -> None:
    model = models.create(name).train()
    given = models.images(model, 2)
    losses, gradients = [], []
    for function in (torch.compile(model, fullgraph=True), model):
        loss = function(given).square().mean()
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)

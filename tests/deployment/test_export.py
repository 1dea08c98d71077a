"""What torch.export makes of models, for any batch: a package of AOTInductor, and ONNX."""

from pathlib import Path

import elsa_ext
import onnxruntime
import pytest
import torch
from deployment import models
from torch.export import Dim

pytestmark = models.IGNORED

BATCH = ({0: Dim("batch")},)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_package_is_served(name: str, tmp_path: Path) -> None:
    model = models.create(name)
    program = torch.export.export(model, (models.images(model, 3),), dynamic_shapes=BATCH)
    path = tmp_path / "model.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    models.check_served("torch._inductor.aoti_load_package", path, model)


@pytest.mark.parametrize("name", models.COMPILED)
def test_onnx(name: str, tmp_path: Path) -> None:
    model = models.create(name)
    path = tmp_path / "model.onnx"
    with elsa_ext.use_backend("torch"):
        torch.onnx.export(
            model, (models.images(model, 3),), path, dynamic_shapes=BATCH, input_names=["images"], external_data=False
        )
    weights = sum(parameter.nbytes for parameter in model.state_dict().values())
    if name.startswith("elsa"):  # no table of indices for the neighbours of every pixel
        assert path.stat().st_size < 1.2 * weights + 2**18
    session = onnxruntime.InferenceSession(path)
    for batch in (2, 5):
        given = models.images(model, batch)
        (logits,) = session.run(None, {"images": given.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(given), rtol=1e-4, atol=1e-4)

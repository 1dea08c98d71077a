"""The models that are deployed, and a process that has torch and the op library alone to run them in."""

import subprocess
import sys
from pathlib import Path

import elsa_ext
import pytest
import timm
import torch
from elsa_ext.models import convert
from timm.layers import set_scriptable
from torch import Tensor, nn

MODELS = {
    "elsa_swin_micro": {},
    "elsa_volo_d1": {
        "layers": (1, 1, 1, 1),
        "embed_dims": (32, 64, 64, 64),
        "num_heads": (2, 4, 4, 4),
        "pretrained_cfg_overlay": {"input_size": (3, 64, 64), "num_classes": 10},
    },
    "swin_tiny_patch4_window7_224": {  # with neighbourhood attention in place of its windows
        "embed_dim": 32,
        "depths": (1, 1),
        "num_heads": (2, 4),
        "img_size": 64,
        "pretrained_cfg_overlay": {"input_size": (3, 64, 64), "num_classes": 10},
    },
}

# One of them for `make test` where that takes seconds, all for `make test-all`.
COMPILED = [
    pytest.param("elsa_swin_micro", marks=pytest.mark.thorough),
    pytest.param("elsa_volo_d1", marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
]

# What torch's own compilers say of torch: that TorchScript is deprecated (people still serve from it), that a buffer is
# read-only, that a pytree function is to be called otherwise; and that a trace holds to the size that timm checks.
IGNORED = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in ("`torch.jit", "The given buffer is not writable", "`isinstance.treespec, LeafSpec")
] + [pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")]


def create(name: str) -> nn.Module:
    """A model in eval mode, as timm makes it for TorchScript."""
    with set_scriptable(True):
        model = timm.create_model(name, **MODELS[name]).eval()
    if not name.startswith("elsa"):
        convert(model, to="neighborhood")
    with torch.no_grad():
        for parameter in model.parameters():  # away from zero, where a part that is left out would not be missed
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(model: nn.Module, batch: int) -> Tensor:
    """Noise in the size that a model takes."""
    return torch.randn(batch, *model.default_cfg["input_size"])


SERVER = """
import sys
import torch
import torch._inductor.codecache  # torch 2.10 uses it and does not import it
library, model, answers = sys.argv[1:]
torch.ops.load_library(library)
model = {load}(model)
with torch.no_grad():
    for images, logits in torch.load(answers):
        torch.testing.assert_close(model(images), logits, rtol=1e-4, atol=1e-4)
assert not {{"elsa_ext", "timm"}} & sys.modules.keys()
"""


def check_served(load: str, path: Path, model: nn.Module) -> None:
    """Have a fresh process ``load`` a file and answer as ``model`` does, for two sizes of the batch."""
    answers = path.with_suffix(".answers")
    with torch.no_grad():
        torch.save([(given, model(given)) for given in (images(model, 2), images(model, 5))], answers)
    arguments = [elsa_ext.build_info()["library"], str(path), str(answers)]
    command = [sys.executable, "-W", "error", "-W", "ignore:`torch.jit", "-c", SERVER.format(load=load), *arguments]
    server = subprocess.run(command, capture_output=True, text=True, check=False)
    assert server.returncode == 0, server.stderr

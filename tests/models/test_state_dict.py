"""Checkpoints as people have them: the weights that every form holds, and what is said of those that hold none."""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from elsa_ext.cli.checkpoint import Checkpoint, load_model
from elsa_ext.cli.errors import CommandError
from elsa_ext.models import load_official_checkpoint, load_volo_checkpoint
from elsa_ext.models.state_dict import read_state_dict
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

SMALL = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 3, "kernel_size": 3}
VOLO = {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 4, 4, 4), "num_classes": 5}
WEIGHTS = {
    name: torch.randn(2) for name in ("patch_embed.proj.weight", "layers.0.blocks.0.attn.ghost_head", "norm.bias")
}
OTHERS = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]}


def small_model(**changed: Any) -> nn.Module:
    return timm.create_model("elsa_swin_micro", **{**SMALL, **changed})


def under(prefix: str, state_dict: dict[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state_dict.items()}


def read(content: Any, wanted: dict[str, Tensor] = WEIGHTS) -> dict[str, Tensor]:
    return read_state_dict("read", content, wanted)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


AVERAGED = {"n_averaged": torch.tensor(3), **under("module.", OTHERS)}

PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "module.module.module.",
    "_orig_mod._orig_mod.",
    "model.",
    "net.",
    "backbone.",
    "timm_model.",
    "model._orig_mod.module.",
    "_fsdp_wrapped_module.",
    "module.model.net._fsdp_wrapped_module.",
    "state_dict.",
    # Names that the model itself has, but not first.
    "attn.",
    "norm.",
    "layers.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes(prefix: str) -> None:
    assert equal(read({"state_dict": under(prefix), "epoch": 3}), WEIGHTS)


def test_wrappers_inside_names() -> None:
    compiled = {name.replace("blocks.0.", "blocks.0._orig_mod."): tensor for name, tensor in WEIGHTS.items()}
    assert equal(read(under("module.", compiled)), WEIGHTS)
    sharded = {
        name.replace("0.attn", "0._fsdp_wrapped_module._checkpoint_wrapped_module.attn"): tensor
        for name, tensor in WEIGHTS.items()
    }
    assert equal(read(sharded), WEIGHTS)
    named_alike = {"layers.my_orig_mod.weight": torch.zeros(1), "norm.bias": torch.zeros(1)}
    assert equal(read(named_alike, named_alike), named_alike)


def test_a_prefix_that_not_all_names_have_stays() -> None:
    mixed = {**under("model."), "criterion.weight": torch.ones(3)}
    assert equal(read(mixed), mixed)
    part = {name: tensor for name, tensor in WEIGHTS.items() if name.startswith("layers.")}
    assert equal(read(part), part)


def test_a_layer_that_is_called_like_an_average_stays() -> None:
    pooled = {"avg_pool.weight": torch.zeros(1), "norm.bias": torch.zeros(1)}
    assert equal(read(under("module.", pooled), pooled), pooled)


FORMS: dict[str, Any] = {
    "timm": {"epoch": 1, "arch": "x", "state_dict": WEIGHTS, "optimizer": OPTIMIZER, "state_dict_ema": OTHERS},
    "state_dict before model": {"model": OTHERS, "net": OTHERS, "state_dict": WEIGHTS},
    "model before others": {"generator": OTHERS, "model": WEIGHTS},
    "only the average": {"epoch": 1, "state_dict_ema": under("module.")},
    "torchvision": {"model": WEIGHTS, "optimizer": OPTIMIZER, "model_ema": AVERAGED, "scaler": {"scale": 1.0}},
    "AveragedModel": {"n_averaged": torch.tensor(3), **under("module.")},
    "compiled AveragedModel": {"_orig_mod.n_averaged": torch.tensor(3), **under("_orig_mod.module.module.")},
    "nested": {"model": {"state_dict": {"module": WEIGHTS}}},
    "nested average": {"model": {"ema": OTHERS, "net": WEIGHTS}},
    "Lightning": {"state_dict": under("model."), "optimizer_states": [OPTIMIZER], "hyper_parameters": {"lr": 1.0}},
    "Lightning with an average": {"state_dict": {**under("net."), **under("model_ema.module.", OTHERS)}},
    "average beside a plain model": {**WEIGHTS, **under("ema.module.", OTHERS)},
    "DeepSpeed": {"module": WEIGHTS, "buffer_names": ["x"], "optimizer": None, "param_shapes": [{"a.b": (1,)}]},
    "others": {"net": WEIGHTS, "net_ema": OTHERS, "rng": {"cpu": torch.zeros(4)}, "epoch": 3},
    "ordered": OrderedDict(model_state_dict=OrderedDict(WEIGHTS), optimizer_state_dict=OPTIMIZER),
    "thop": {**WEIGHTS, "total_params": torch.zeros(1), "layers.0.total_ops": torch.zeros(1)},
    "SWA alone": {"swa_state_dict": {"n_averaged": torch.tensor(1), **under("module.")}, "epoch": 3},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, tmp_path: Path) -> None:
    assert equal(read(FORMS[form]), WEIGHTS)
    torch.save(FORMS[form], tmp_path / "checkpoint.pth")
    assert equal(read(tmp_path / "checkpoint.pth"), WEIGHTS)


@pytest.mark.parametrize("wrap", [
    lambda model: model,
    lambda model: {"model": model, "ema": small_model(), "epoch": 3},
    lambda model: nn.DataParallel(model),
    lambda model: {"ema": AveragedModel(model)},
    lambda model: ModelEmaV3(model),
    lambda model: torch.compile(model),
], ids=["module", "YOLO", "DataParallel", "AveragedModel", "ModelEmaV3", "compiled"])  # fmt: skip
def test_modules(wrap: Callable[[nn.Module], Any]) -> None:
    source, model = small_model(), small_model()
    load_official_checkpoint(model, wrap(source))
    assert equal(model.state_dict(), source.state_dict())


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, AveragedModel, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_into_a_wrapped_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    source, model = small_model(), small_model()
    load_official_checkpoint(wrap(model), source.state_dict())
    assert source.state_dict().keys() == model.state_dict().keys()
    wrapped = wrap(small_model())
    load_official_checkpoint(wrapped, under("module.", source.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), wrapped.parameters(), strict=True))


@pytest.mark.parametrize("prefix", ["", "network.", "module.network.", "network.network."])
def test_a_volo_that_is_called_as_a_part_of_it(prefix: str) -> None:
    source = timm.models.volo._create_volo("volo_d1_224", **VOLO).state_dict()
    model = timm.create_model("elsa_volo_d1", **VOLO)
    untrained = load_volo_checkpoint(torch.compile(model), {"state_dict": under(prefix, source)})
    assert all(name.startswith("network.0.0.attn.") for name in untrained)
    assert torch.equal(model.network[2][0].mlp.fc1.weight, source["network.2.0.mlp.fc1.weight"])
    assert torch.equal(model.pos_embed, source["pos_embed"])


@pytest.mark.parametrize(("name", "arguments"), [("elsa_swin_micro", SMALL), ("elsa_volo_d1", VOLO)])
def test_create_model_reads_wrapped_names(name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    source = timm.create_model(name, **arguments).state_dict()
    torch.save({"state_dict": under("_orig_mod.module.model.", source)}, tmp_path / "weights.pth")
    file = {"file": str(tmp_path / "weights.pth"), "num_classes": arguments["num_classes"]}
    assert equal(
        timm.create_model(name, **arguments, pretrained=True, pretrained_cfg_overlay=file).state_dict(), source
    )


@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_classify_takes_them(prefix: str, tmp_path: Path) -> None:
    source = small_model().state_dict()
    content = {"model": "elsa_swin_micro", "model_kwargs": SMALL, "classes": list("abc"), "epoch": 1, "metrics": {}}
    content |= {"input": {"input_size": (3, 32, 32)}, "state_dict": under(prefix, source)}
    Checkpoint(**content).save(tmp_path / "checkpoint.pt")
    assert equal(load_model(str(tmp_path / "checkpoint.pt"))[1].state_dict(), source)
    Checkpoint(**{**content, "state_dict": {**under("model.", source), "loss.weight": torch.zeros(1)}}).save(
        tmp_path / "checkpoint.pt"
    )
    with pytest.raises(CommandError, match="are not those of elsa_swin_micro"):
        load_model(str(tmp_path / "checkpoint.pt"))


def test_safetensors(tmp_path: Path) -> None:
    save_file(under("model."), tmp_path / "model.safetensors")
    assert equal(read(tmp_path / "model.safetensors"), WEIGHTS)


def test_metrics_and_arguments_beside_the_weights(tmp_path: Path) -> None:
    metrics = {"top1": np.float64(82.7), "loss": np.float32(1), "epoch": np.int64(3), "best": np.bool_(True)}
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1e-3), **metrics}, tmp_path / "checkpoint.pth")
    assert equal(read(tmp_path / "checkpoint.pth"), WEIGHTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OPTIMIZER, "got the state of an optimizer$"),
        ({"optimizer": OPTIMIZER, "epoch": 3}, "got a dict with 'optimizer': dict, 'epoch': int$"),
        ({**WEIGHTS, "epoch": 3}, "got a dict with 3 tensors and 'epoch': int$"),
        ({"model": {name: tensor.numpy() for name, tensor in WEIGHTS.items()}}, "got a dict with 'model': dict$"),
        ([WEIGHTS], "got list$"),
        ({"student": WEIGHTS, "teacher": OTHERS}, "there are several state dicts, 'student', 'teacher': pass the one"),
        ({"ema": WEIGHTS, "model_ema": OTHERS}, "there are several state dicts, 'ema', 'model_ema': pass the one"),
    ],
)
def test_what_was_found_is_said(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^read: .*{message}"):
        read(content)


def test_an_unused_ambiguity_does_no_harm() -> None:
    assert equal(read({"state_dict": WEIGHTS, "history": {"a": WEIGHTS, "b": OTHERS}}), WEIGHTS)


@pytest.mark.parametrize("content", ["module", "dict"])
def test_a_file_with_a_module_names_how(content: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    model = small_model()
    torch.save(model if content == "module" else {"model": model}, path)
    with pytest.raises(pickle.UnpicklingError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == (
        f"read: {path} holds more than weights, elsa_ext.models.elsa_swin.ELSASwin, whose loading runs code: "
        f"if you trust where it comes from, pass torch.load({str(path)!r}, map_location='cpu', weights_only=False) "
        "in its place"
    )
    advised = torch.load(str(path), map_location="cpu", weights_only=False)
    assert equal(read(advised, model.state_dict()), model.state_dict())


@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_damaged_files(name: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    with pytest.raises(ValueError, match=rf"^read: {path} is not a checkpoint, or is damaged$"):
        read(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
def test_a_torchscript_file(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    scripted.save(str(path))
    with pytest.raises(ValueError, match=f"^read: {path} is a TorchScript file: pass torch.jit.load"):
        read(path)
    assert equal(read(torch.jit.load(str(path)), scripted.state_dict()), dict(scripted.state_dict()))


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / name)
    with pytest.raises(OSError):
        read(tmp_path)

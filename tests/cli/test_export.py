"""``elsa-ext export``: what is written answers as the checkpoint's model does, and says what it takes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import elsa_ext
import pytest
import torch
from deployment.models import IGNORED
from elsa_ext.cli.checkpoint import load_model
from elsa_ext.cli.export import command as exporting
from elsa_ext.cli.export.command import compare
from torch import Tensor

from .conftest import Result, limit_of_file_size
from .test_errors import assert_refused

Command = Callable[..., Result]

pytestmark = IGNORED

SERVER = """
import json, sys, torch
import torch._inductor.codecache
torch.ops.load_library(sys.argv[1])
images, expected = torch.load(sys.argv[3])
if sys.argv[2].endswith(".ts"):
    facts = dict.fromkeys(["model", "classes", "mean", "std", "input_size"], "")
    model = torch.jit.load(sys.argv[2], _extra_files=facts)
else:
    model = torch._inductor.aoti_load_package(sys.argv[2])
    facts = model.get_metadata()
with torch.no_grad():
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
assert "elsa_ext" not in sys.modules
print(json.dumps({name: json.loads(facts[name]) for name in ("model", "classes", "mean", "std", "input_size")}))
"""

FACTS = {
    "model": "elsa_swin_micro",
    "classes": ["blue", "red"],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "input_size": [3, 32, 32],
}


@pytest.mark.parametrize(
    "suffix", [pytest.param(".ts", marks=pytest.mark.thorough), pytest.param(".pt2", marks=pytest.mark.slow)]
)
def test_served_without_elsa_ext(command: Command, trained: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a b{suffix}"
    result = command("export", trained / "checkpoint.pt", path)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == ["written", "checked", "input", "mean", "needs"]
    checkpoint, model = load_model(str(trained / "checkpoint.pt"))
    images = torch.randn(3, *checkpoint.input["input_size"])
    with torch.no_grad():
        torch.save((images, model(images)), tmp_path / "answers")
    arguments = [elsa_ext.build_info()["library"], path, tmp_path / "answers"]
    served = subprocess.run([sys.executable, "-c", SERVER, *map(str, arguments)], capture_output=True, text=True)
    assert served.returncode == 0, served.stderr
    assert json.loads(served.stdout) == FACTS


@pytest.mark.thorough
@pytest.mark.parametrize("runtime", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_onnx(command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if not runtime:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = tmp_path / "model.onnx"
    result = command("export", trained / "checkpoint.pt", path)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()] == ["written", "checked", "input", "mean"]
    session = onnxruntime.InferenceSession(path)
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts.items() >= FACTS.items()
    assert [node.name for node in (*session.get_inputs(), *session.get_outputs())] == ["images", "logits"]
    _, model = load_model(str(trained / "checkpoint.pt"))
    images = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected)


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["weights", "nan", "shape"])
def test_wrong_result_leaves_no_file(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def load(path: Path) -> Callable[[Tensor], Tensor]:
        _, model = load_model(str(trained / "checkpoint.pt"))
        changed = {
            "weights": lambda logits: logits * (1 + 1e-3),
            "nan": lambda logits: logits.where(logits < logits.max(), torch.nan),
            "shape": lambda logits: logits[:1],
        }[wrong]
        return lambda images: changed(model(images))

    monkeypatch.setitem(exporting.WRITERS, "torchscript", lambda model, checkpoint, path: path.write_text("model"))
    monkeypatch.setitem(exporting.LOADERS, "torchscript", load)
    (tmp_path / "old.pt").write_text("old")
    for name in ("new.pt", "old.pt"):
        result = command("export", trained / "checkpoint.pt", tmp_path / name)
        assert result.code == 1 and result.out == "" and result.err.count("\n") == 1
        assert ("differs from the checkpoint's" in result.err) == (wrong != "shape")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.pt", "old")]


def test_compare_sees_every_batch() -> None:
    seen = []

    def watched(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.flatten(1)

    assert compare(watched, torch.nn.Flatten(), (3, 2, 2))[0] == 0
    assert {1, 2} < {*seen} and seen.count(2) == 3


@pytest.mark.thorough
def test_mistakes(command: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoint.pt"
    before = checkpoint.read_bytes()
    assert_refused(
        command("export", checkpoint, "model.bin"), "model.bin ends in none of .pt, .ts, .pt2, .onnx: give --format"
    )
    assert_refused(command("export", checkpoint, checkpoint), "is one of the files that are read, and would be lost")
    assert_refused(command("export", tmp_path / "no.pt", "a.ts"), f"no such file: {tmp_path}/no.pt")
    assert_refused(command("export", checkpoint, tmp_path / "no" / "a.ts"), f"{tmp_path}/no/a.ts: No such file")
    assert_refused(command("export", checkpoint, tmp_path, "--format", "aot"), f"{tmp_path}: Is a directory")
    assert_refused(command("export", checkpoint, "a.ts", "--format", "tflite"), "--format", "torchscript")
    assert checkpoint.read_bytes() == before and list(tmp_path.iterdir()) == []


def test_package_missing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert_refused(command("export", "a.pt", "a.onnx"), "elsa-ext export: onnxscript not installed: pip")


@pytest.mark.thorough
def test_full_disk(command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporting.WRITERS, "torchscript", lambda model, checkpoint, path: path.write_bytes(bytes(4000)))
    monkeypatch.setitem(exporting.LOADERS, "torchscript", lambda path: load_model(str(trained / "checkpoint.pt"))[1])
    monkeypatch.setattr(exporting, "copy", lambda path, file: [file.write(bytes(4096)) for _ in range(100)])
    with limit_of_file_size(8192):
        result = command("export", trained / "checkpoint.pt", tmp_path / "model.pt")
    assert result.code == 2 and f"{tmp_path}/model.pt: File too large" in result.err
    assert list(tmp_path.iterdir()) == []

"""Which CUDA kernels are loaded, and what is said where none are."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import elsa_ext
import pytest
import torch
from elsa_ext import _library, _torch_private, backend
from ops.backends import registered_ops

# A wheel has ops for every Python, and the rest for those that it was built with.
WITHOUT_COMPILED_PART = """
import sys
sys.modules["elsa_ext._C"] = None
import elsa_ext, torch
value, attn = torch.ones(1, 4, 5, 5), torch.ones(1, 9, 5, 5)
assert elsa_ext.ghost_head(value, attn, kernel_size=3)[0, 0, 2, 2] == 9
assert elsa_ext.build_info()["cpu_capability"]
for name, call in (
    ("reference", lambda: elsa_ext.reference.ghost_head(value, attn, kernel_size=3)),
    ("launch_plan", lambda: elsa_ext.launch_plan("ghost_head", kernel_size=3)),
):
    try:
        call()
    except ImportError as error:
        assert str(error).startswith(f"{name} is not in this elsa_ext for Python 3"), error
        assert str(error).endswith("; its ops are"), error
    else:
        raise AssertionError(name)
"""

BUILT = "CUDA 13.0.88, architectures 80-real;90"


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What ``_load_cuda`` says of a build, a torch, and a folder with a library file or without."""

    def load(built: str = BUILT, torch_cuda: str | None = "13.2", library: bool = True) -> str:
        if library:
            (tmp_path / "libelsa_cuda.so").write_text("not a library")
        monkeypatch.setattr(_library, "_FOLDER", tmp_path)
        monkeypatch.setitem(_library._BUILD, "CUDA kernels", built)
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        return _library._load_cuda()

    return load


def test_built_without_cuda(status) -> None:
    said = status(built="none: no nvcc was found", library=False)
    assert "built without CUDA kernels (no nvcc was found)" in said and "ELSA_CUDA=on" in said


def test_torch_without_cuda(status) -> None:
    assert status(torch_cuda=None) == f"torch {torch.__version__} was built without CUDA"


def test_another_major_version(status) -> None:
    said = status(torch_cuda="12.8")
    assert "built for CUDA 13 and torch for CUDA 12" in said
    assert "install an elsa_ext for CUDA 12, or a torch for CUDA 13" in said


def test_a_library_that_does_not_load(status, tmp_path: Path) -> None:
    assert status().startswith(f"{tmp_path / 'libelsa_cuda.so'} does not load: ")


@pytest.mark.thorough
def test_nothing_at_run_time_needs_the_compiled_part() -> None:
    process = subprocess.run([sys.executable, "-c", WITHOUT_COMPILED_PART], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_build_and_the_status_agree() -> None:
    info = elsa_ext.build_info()
    loaded = info["CUDA kernels here"] == "loaded"
    assert not (loaded and info["CUDA kernels"].startswith("none"))
    for op in registered_ops():
        assert _torch_private.has_kernel(f"elsa::{op}", "cpu")
        assert _torch_private.has_kernel(f"elsa::{op}", "cuda") == loaded


class _OnCuda:
    """What ``is_native`` asks of a tensor, on a machine without CUDA."""

    device = torch.device("cuda")


def test_the_formula_takes_over_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_NATIVE_DEVICES", {"ghost_head": ("cpu", "meta")})
    monkeypatch.setattr(backend, "_warned", set())
    monkeypatch.setattr(backend, "CUDA_STATUS", "because of this")
    message = re.escape("no ghost_head kernel for cuda (because of this): it takes the plain-PyTorch formula")
    with pytest.warns(UserWarning, match=message):
        assert not backend.is_native("ghost_head", _OnCuda())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not backend.is_native("ghost_head", _OnCuda())

"""Which CUDA kernels are loaded, and what is said where none are."""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
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


@pytest.mark.parametrize(
    ("torch_package", "said"),
    [
        ("raise ModuleNotFoundError(name='torch')", "and there is none: python -m pip install torch"),
        ("__version__ = '2.9.1+cpu'", "this is 2.9.1+cpu: python -m pip install 'torch>=2.10'"),
        ("raise ModuleNotFoundError('sympy is missing', name='sympy')", "ModuleNotFoundError: sympy is missing"),
        ("raise OSError('libcudart.so is missing')", "OSError: libcudart.so is missing"),
    ],
    ids=["none", "old", "broken", "without a library"],
)
def test_a_torch_that_does_not_do(tmp_path: Path, torch_package: str, said: str) -> None:
    (tmp_path / "torch.py").write_text(torch_package)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import elsa_ext"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last in (said, f"ImportError: elsa_ext needs torch 2.10 or newer, {said}")


def test_the_build_and_the_status_agree() -> None:
    info = elsa_ext.build_info()
    loaded = info["CUDA kernels here"] == "loaded"
    assert not (loaded and info["CUDA kernels"].startswith("none"))
    for op in registered_ops():
        assert _torch_private.has_kernel(f"elsa::{op}", "cpu")
        assert _torch_private.has_kernel(f"elsa::{op}", "cuda") == loaded


class OnCuda:
    """What ``is_native`` asks of a tensor, on a machine without CUDA."""

    def __init__(self, index: int) -> None:
        self.device = torch.device("cuda", index)


def test_the_formula_takes_over_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_NATIVE_DEVICES", {"ghost_head": ("cpu", "meta")})
    monkeypatch.setattr(backend, "_warned", set())
    monkeypatch.setattr(backend, "CUDA_STATUS", "because of this")
    message = re.escape("no ghost_head kernel for cuda (because of this): it takes the plain-PyTorch formula")
    with pytest.warns(UserWarning, match=message):
        assert not backend.is_native("ghost_head", OnCuda(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not backend.is_native("ghost_head", OnCuda(0))


class FromAnotherGpu:
    """libelsa_cuda on a device of compute capability 12.0 that its kernels do not run on; device 1 is another."""

    class elsa_cuda_unusable:
        def __new__(cls, device: int) -> bytes | None:
            return b"no kernel image is available for execution on the device" if device == 0 else None


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine with two GPUs, of which the kernels run on the second alone."""
    (tmp_path / "libelsa_cuda.so").touch()
    monkeypatch.setattr(_library, "_FOLDER", tmp_path)
    monkeypatch.setattr(_library, "CUDA_STATUS", "loaded")
    monkeypatch.setitem(_library._BUILD, "CUDA kernels", BUILT)
    monkeypatch.setattr(_library.ctypes, "CDLL", lambda path: FromAnotherGpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    monkeypatch.setattr(backend, "_NATIVE_DEVICES", {"ghost_head": ("cpu", "cuda", "meta")})
    monkeypatch.setattr(backend, "_warned", set())
    _library.cuda_device_problem.cache_clear()
    yield
    _library.cuda_device_problem.cache_clear()


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_no_kernel_was_built_for() -> None:
    problem = (
        "they were built for the architectures 80-real;90, and Some GPU has compute capability 12.0: no kernel image "
        "is available for execution on the device"
    )
    message = f"no ghost_head kernel for cuda ({problem}): it takes the plain-PyTorch formula"
    with pytest.warns(UserWarning, match=re.escape(message)):
        assert not backend.is_native("ghost_head", OnCuda(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not backend.is_native("ghost_head", OnCuda(0))
        assert backend.is_native("ghost_head", OnCuda(1))


@pytest.mark.thorough
@pytest.mark.usefixtures("gpus")
def test_compiled_code_asks_for_the_device() -> None:
    asks = torch.compile(lambda x: x + 1 if backend._cuda_device_problem(0) else x, fullgraph=True, backend="eager")
    assert asks(torch.zeros(())) == 1

"""The import of timm: without it, and beside a torchvision whose compiled ops do not load."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import elsa_ext.models
import pytest
from elsa_ext._install import install_command

SOURCE = Path(elsa_ext.models.__file__).with_name("_timm.py")


def run_import() -> ModuleType:
    """Execute ``elsa_ext.models._timm`` afresh."""
    spec = importlib.util.spec_from_file_location("fresh_timm_import", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which timm and torchvision are imported in place of the real ones."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("timm", "torchvision"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("timm", "torchvision"):
        (tmp_path / name).mkdir()
    (tmp_path / "timm" / "__init__.py").write_text("import timm.first\nimport torchvision\n")
    (tmp_path / "timm" / "first.py").write_text("")
    yield tmp_path
    for name in list(sys.modules):
        if name.split(".")[0] in ("timm", "torchvision"):
            del sys.modules[name]


def test_ops_that_torchvision_asks_for_are_defined(packages: Path) -> None:
    (packages / "torchvision" / "__init__.py").write_text(
        "import torch\n"
        "import torchvision.extension\n"
        "for name in ('elsa_test_first', 'elsa_test_second'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda dets, scores, iou_threshold: dets)\n"
        # A submodule that the failed import left behind would not become an attribute of the new package.
        "torchvision.extension\n"
    )
    (packages / "torchvision" / "extension.py").write_text("")
    timm = run_import().import_timm()
    assert timm is sys.modules["timm"]
    assert Path(timm.__file__).parent == packages / "timm"


def test_an_op_that_stays_unknown_is_an_error(packages: Path) -> None:
    (packages / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::elsa_test_third does not exist')"
    )
    with pytest.raises(RuntimeError, match="elsa_test_third"):
        run_import()


def test_other_errors_pass(packages: Path) -> None:
    (packages / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator elsewhere::nms does not exist')"
    )
    with pytest.raises(RuntimeError, match="elsewhere"):
        run_import()


def test_a_missing_dependency_of_timm_keeps_its_name(packages: Path) -> None:
    (packages / "torchvision" / "__init__.py").write_text("import elsa_test_absent")
    with pytest.raises(ModuleNotFoundError, match="elsa_test_absent"):
        run_import()


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError) as caught:
        run_import()
    assert str(caught.value) == f"elsa_ext.models needs timm: {install_command('timm')}"
    assert caught.value.__suppress_context__

"""What installs ``elsa_ext.compat.natten`` under natten's name for one test."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
from elsa_ext.compat import natten


@pytest.fixture
def as_natten(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Install a version, and return what ``import natten`` gives; afterwards there is none again."""
    if find_spec("natten") is not None:
        pytest.skip("a natten is installed")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    def install(version: str) -> ModuleType:
        natten.install(version)
        return import_module("natten")

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "natten"]:
        del sys.modules[name]

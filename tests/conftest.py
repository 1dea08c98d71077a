"""Fixtures that every test folder shares."""

import contextlib
from collections.abc import Iterator

import pytest
import torch

# Before any test imports timm, which beside a torchvision that was built for another torch does not import alone.
with contextlib.suppress(ImportError):
    import elsa_ext.models  # noqa: F401

pytest.register_assert_rewrite("ops.checks")

from ops import backends  # noqa: E402


@pytest.fixture(params=backends.ALL, ids=str)
def backend(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """Every implementation in turn: the public functions must act alike on all of them."""
    yield from backends.enter(request.param)


@pytest.fixture(params=backends.NATIVE, ids=str)
def native(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """The compiled implementations alone, for what is about the registered ops."""
    yield from backends.enter(request.param)


@pytest.fixture(params=backends.UNEMULATED, ids=str)
def unemulated(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """Every implementation but the emulated kernels, for what is about the Python above the ops."""
    yield from backends.enter(request.param)


@pytest.fixture(params=[*backends.HARDWARE, pytest.param(backends.TORCH, marks=pytest.mark.slow)], ids=str)
def unemulated_formula_slow(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """As `unemulated`, for what takes the formula many seconds."""
    yield from backends.enter(request.param)


@pytest.fixture(params=backends.HARDWARE, ids=str)
def hardware(request: pytest.FixtureRequest) -> Iterator[backends.Backend]:
    """The kernels on the devices that they are for, for what is about the Python around the registered ops."""
    yield from backends.enter(request.param)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)

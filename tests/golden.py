"""Outputs and gradients of the official code, and the inputs and weights that give them."""

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

DIRECTORY = Path(os.environ.get("ELSA_GOLDEN_DIR", Path(__file__).parents[2] / "shared" / "golden"))


@dataclass(frozen=True)
class Case:
    """One case of a golden file: its settings, and its arrays by name."""

    name: str
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def fill(self, array: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> Tensor:
        """The input called ``array``, in float64."""
        return torch.from_numpy(_filler().fill(f"{self.name}.{array}", tuple(shape), low, high))

    def state_dict(self) -> dict[str, Tensor]:
        """The official state dict of the case, in float64; buffers are zero."""
        shapes = self.settings["state_dict"]
        state_dict = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        return fill_state_dict(state_dict)


def cases(kind: str) -> list[Any]:
    """The cases of the golden file ``kind``, as parameters of a test; one that is skipped where there is no file."""
    description = DIRECTORY / f"{kind}.json"
    if not description.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden files in {DIRECTORY}"), id="absent")]
    settings = json.loads(description.read_text())
    with np.load(DIRECTORY / f"{kind}.npz") as file:
        arrays = dict(file)
    return [
        pytest.param(
            Case(
                name,
                given,
                {key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")},
            ),
            id=name,
        )
        for name, given in settings.items()
    ]


def assert_agrees(name: str, actual: Tensor, expected: Tensor | np.ndarray) -> None:
    """Assert that ``actual`` is within 1e-9 of the largest entry of ``expected``."""
    expected = torch.as_tensor(expected)
    actual = actual.detach().cpu()
    assert actual.dtype == torch.float64
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    if expected.numel():
        error = float((actual - expected).abs().max())
        assert error <= 1e-9 * float(expected.abs().max()), f"{name}: off by {error}"


def fill_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give every parameter of a state dict the value of its name and shape, in place."""
    return _filler().fill_state_dict(state_dict)


def parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """The parameter called ``name``, in float64."""
    return fill_state_dict({name: torch.zeros(shape, dtype=torch.float64)})[name]


def _filler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", DIRECTORY / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

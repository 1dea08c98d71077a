"""The PTX that nvcc makes of the kernels on patches: what it computes, and that no thread runs ahead of another."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import elsa_ext
import numpy as np
import pytest
from ptx.memory import Fault
from ptx.patches import BFLOAT16, FLOAT16, FLOAT32, Call, NumberType
from ptx.program import Kernel, kernels

ROOT = Path(__file__).parents[2]

# Everywhere else there is no PTX to interpret.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc makes the PTX that is interpreted"),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kernel]:
    ptx = tmp_path_factory.mktemp("ptx") / "kernels.ptx"
    source = ROOT / "tests" / "ptx" / "neighborhood_attention.cu"
    command = ["nvcc", "-ptx", "-std=c++20", "-arch=sm_90", "-I", ROOT / "src" / "cuda" / "platform", source, "-o", ptx]
    subprocess.run(command, check=True)
    return kernels(ptx.read_text())


def case(
    shape: tuple[int, int, int, int], *, heads: int = 1, wider: int = 0, kernel_size: tuple[int, int] = (3, 3),
    dilation: tuple[int, int] = (1, 1), border: str = "shift", window_stride: tuple[int, int] = (1, 1),
    causal: tuple[int, int] = (0, 0), relative: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Return options, and the shapes of what is given."""
    rows, columns = kernel_size
    value = (shape[0], shape[1] + heads * wider, *shape[2:])
    shapes = {
        "query": shape, "key": shape, "value": value, "grad": value,
        "bias": (heads, 2 * rows - 1, 2 * columns - 1) if relative else (heads, rows * columns),
    }  # fmt: skip
    options = {
        "heads": heads, "kernel_size": kernel_size, "dilation": dilation, "scale": 0.4, "border": border,
        "window_stride": window_stride, "causal": causal,
    }  # fmt: skip
    return options, shapes


@pytest.mark.parametrize(
    ("kind", "vector", "tolerance", "given"),
    [
        (BFLOAT16, True, 4e-3, case((1, 32, 5, 11), kernel_size=(3, 5))),
        (BFLOAT16, True, 4e-3, case((2, 16, 3, 9), heads=2, border="zeros", relative=False)),
        (FLOAT16, False, 1e-3, case((1, 10, 4, 7), border="circular", dilation=(1, 2), wider=3)),
        (FLOAT16, False, 1e-3, case((1, 6, 6, 9), kernel_size=(3, 7), window_stride=(2, 3), causal=(1, 0))),
        (FLOAT32, True, 2e-6, case((1, 40, 3, 19), border="mask", kernel_size=(3, 13), wider=-8)),
        (FLOAT32, True, 2e-6, case((1, 8, 9, 4), kernel_size=(5, 3), border="shift", relative=False)),
        # Of five rows two are odd: the second patch of these has no pixel.
        (FLOAT32, True, 2e-6, case((1, 8, 5, 9), border="zeros", dilation=(2, 1))),
    ],
    ids=lambda value: value.mangled if isinstance(value, NumberType) else None,
)
def test_ptx_agrees_with_the_oracle(
    compiled: dict[str, Kernel], kind: NumberType, vector: bool, tolerance: float,
    given: tuple[dict[str, Any], dict[str, Any]],
) -> None:  # fmt: skip
    options, shapes = given
    random = np.random.default_rng(0)
    arrays = {name: kind.read(kind.stored(random.standard_normal(shape))) for name, shape in shapes.items()}
    call = Call(compiled, kind, vector, options, arrays)
    found = {"out": call.forward(), **call.backward(units=2)}
    inputs = [arrays[name] for name in ("query", "key", "value", "bias")]
    expected = {
        "out": elsa_ext.reference.neighborhood_attention(*inputs, **options),
        **dict(
            zip(
                ("query", "key", "value", "bias"),
                elsa_ext.reference.neighborhood_attention_backward(arrays["grad"], *inputs, **options),
                strict=True,
            )
        ),
    }
    for name, exact in expected.items():
        error = np.abs(found[name].reshape(exact.shape) - exact).max() / np.abs(exact).max()
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("barrier", ["bar.warp.sync", "bar.sync"])
def test_a_missing_barrier_is_found(compiled: dict[str, Kernel], barrier: str) -> None:
    """The interpreter would show it: it shows it where there are none."""
    without = {}
    for name, kernel in compiled.items():
        without[name] = replace(
            kernel,
            instructions=[replace(i, operation="nop") if i.operation == barrier else i for i in kernel.instructions],
        )
    options, shapes = case((1, 8, 3, 9))
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    with pytest.raises(Fault, match=r"another thread has just written|may still have to read"):
        Call(without, FLOAT32, True, options, arrays).forward()

"""Every op against the float64 oracle: sizes, options, dtypes and memory layouts, forward and backward."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ops.backends import EMULATED, NATIVE, TORCH, Backend
from ops.cases import DTYPES, GRAD_LAYOUTS, HALVES, LAYOUTS, Case, make, make_grad, marks_of, numbers
from ops.checks import check, evaluate
from ops.pairwise import pairwise
from ops.registry import DEFAULT, OPS, every, of
from ops.spec import Op


def calls(op: Op) -> list[tuple[Case, torch.dtype, torch.dtype | None, str]]:
    """Case, dtype, dtype of its matrices, and layout: every size in float64, in float32 and in 16 bits.

    In 16 bits twice, if it has matrices: with those in 16 bits, and in float32.
    """
    chosen = []
    kinds = ("64", "32", "16", "16 and 32")
    for case, kind, half, layout in pairwise(op.sizes, kinds, HALVES, ("contiguous", "channels_last")):
        dtype = {"64": torch.float64, "32": torch.float32}.get(kind, half)
        if kind != "16 and 32":
            chosen.append((case, dtype, None, layout))
        elif set(case.given) & set(case.matrices):
            chosen.append((case, dtype, torch.float32, layout))
    return chosen


def marks(backend: Backend, case: Case, dtype: torch.dtype, matrix_dtype: torch.dtype | None) -> list[Any]:
    """Of a call: what float32 and 16 bits find by themselves is found soon enough, and what 16 bits find emulated."""
    is_rare = dtype == torch.float64 or matrix_dtype is not None
    if is_rare and numbers(case) > 16_000:
        return [pytest.mark.slow]
    is_later = is_rare or (backend is EMULATED and dtype == torch.float32)
    return [pytest.mark.thorough] if is_later else marks_of(case)


@pytest.mark.parametrize(
    ("native", "case", "dtype", "matrix_dtype", "layout"),
    [
        pytest.param(backend, *call, marks=marks(backend, *call[:3]))
        for backend in NATIVE
        for op in OPS
        for call in calls(op)
    ],
    ids=str,
    indirect=["native"],
)
def test_agrees_with_oracle(
    native: Backend, case: Case, dtype: torch.dtype, matrix_dtype: torch.dtype | None, layout: str
) -> None:
    rounded_once = of(case.op).rounded_once.get(native.name, ())
    check(case, native.device, dtype, matrix_dtype, case.laid_out(layout), rounded_once)


# In float64. In the others, the error of the formula is part of every comparison.
@pytest.mark.parametrize("backend", [TORCH], ids=["torch"], indirect=True)
@pytest.mark.parametrize("case", [pytest.param(case, marks=marks_of(case)) for case in every("sizes")], ids=str)
def test_formula_agrees_with_oracle(backend: Backend, case: Case) -> None:
    check(case, backend.device)


LAID_OUT = [
    (case, dtype, dict(zip((*case.images, "grad"), layouts, strict=True)))
    for op in OPS
    for (case, dtype), *layouts in pairwise(op.laid_out, *[LAYOUTS] * len(op.small.images), GRAD_LAYOUTS)
]


@pytest.mark.parametrize(
    "native",
    [pytest.param(each, marks=pytest.mark.thorough if each is EMULATED else []) for each in NATIVE],
    ids=str,
    indirect=True,
)
@pytest.mark.parametrize(("case", "dtype", "layouts"), LAID_OUT, ids=str)
def test_layouts(native: Backend, case: Case, dtype: torch.dtype, layouts: dict[str, str]) -> None:
    check(case, native.device, dtype, layouts=layouts)


@pytest.mark.parametrize("case", every("empty"), ids=str)
def test_empty_result(backend: Backend, case: Case) -> None:
    for dtype in DTYPES:
        tensors = make(case, dtype, backend.device)
        results = evaluate(case, tensors, make_grad(case, dtype, backend.device))
        assert results["out"].shape == case.out_shape
        assert results["out"].dtype == dtype
        for name in case.given:
            assert torch.equal(results[name], torch.zeros_like(tensors[name])), f"gradient of {name}"


@pytest.mark.parametrize("dilation", [2**31, 2**33 + 1, 2**62])
@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_a_dilation_beyond_the_map_leaves_the_centre(backend: Backend, case: Case, dilation: int) -> None:
    case = replace(case, kernel_size=7, stride=2)
    tensors, grad = make(case, device=backend.device), make_grad(case, device=backend.device)
    expected = evaluate(replace(case, dilation=7), tensors, grad)
    for name, result in evaluate(replace(case, dilation=dilation), tensors, grad).items():
        torch.testing.assert_close(result, expected[name], rtol=1e-12, atol=1e-13)

"""vmap of every op: any inputs batched along any dimension give what a loop over samples gives."""

from dataclasses import replace

import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, make, normal
from ops.checks import call
from ops.pairwise import pairwise
from ops.registry import OPS, every
from torch import Tensor

CASES = [replace(op.small, batch=2, height=4, width=5) for op in OPS]
SIZE = 3


def batched_names(case: Case) -> list[tuple[str, ...]]:
    """All tensors, each alone, and every two of them in each of their four ways."""
    ways = pairwise(*[(True, False)] * len(case.given))
    some = [tuple(name for name, chosen in zip(case.given, way, strict=True) if chosen) for way in ways]
    return list(dict.fromkeys([tuple(case.given), *((name,) for name in case.given), *filter(None, some)]))


def batched(case: Case, names: tuple[str, ...], dims: dict[str, int], device: str) -> tuple[list[Tensor], list]:
    """The tensors of ``case`` with those in ``names`` batched along ``dims``, and the in_dims that say so."""
    tensors = make(case, device=device)
    in_dims = []
    for seed, name in enumerate(tensors):
        if name in names:
            stack = normal((SIZE, *case.shapes[name]), torch.float64, device, seed)
            tensors[name] = stack.movedim(0, dims.get(name, 0))
        in_dims.append(dims.get(name, 0) if name in names else None)
    return list(tensors.values()), in_dims


def sample(tensors: list[Tensor], in_dims: list, index: int) -> list[Tensor]:
    """The tensors of sample ``index``."""
    return [t if dim is None else t.select(dim, index) for t, dim in zip(tensors, in_dims, strict=True)]


def function_of(case: Case):
    """``case`` as a function of all its tensors."""
    return lambda *tensors: call(case, dict(zip(case.shapes, tensors, strict=True)))


@pytest.mark.parametrize(("case", "names"), [(case, names) for case in CASES for names in batched_names(case)], ids=str)
def test_batched_inputs(unemulated: Backend, case: Case, names: tuple[str, ...]) -> None:
    tensors, in_dims = batched(case, names, {}, unemulated.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims))(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, -1])
@pytest.mark.parametrize(("case", "name"), [(case, name) for case in CASES for name in case.shapes], ids=str)
def test_in_dims(unemulated: Backend, case: Case, name: str, dim: int) -> None:
    if dim > len(case.shapes[name]):
        dim = 0
    tensors, in_dims = batched(case, tuple(case.shapes), {name: dim}, unemulated.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims), out_dims=1)(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)], 1)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", [case for case in every("options") if len(case.given) < len(case.shapes)], ids=str)
def test_without_a_tensor(unemulated: Backend, case: Case) -> None:
    tensors, in_dims = batched(case, tuple(case.given), {}, unemulated.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims))(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("parameters", ["shared", "batched"])
def test_gradient_of_every_sample(unemulated: Backend, case: Case, parameters: str) -> None:
    """vmap(grad) with the images batched, and the parameters of the op shared or batched too."""
    names = tuple(case.given) if parameters == "batched" else case.images
    tensors, in_dims = batched(case, names, {}, unemulated.device)
    function = function_of(case)
    gradient = torch.func.grad(lambda *args: function(*args).sin().sum(), tuple(range(len(tensors))))
    actual = torch.vmap(gradient, tuple(in_dims))(*tensors)
    rows = [gradient(*sample(tensors, in_dims, i)) for i in range(SIZE)]
    for name, got, want in zip(case.shapes, actual, zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(
            got, torch.stack(want), rtol=1e-11, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_through_vmap(unemulated: Backend, case: Case) -> None:
    tensors, in_dims = batched(case, tuple(case.shapes), {}, unemulated.device)
    function = function_of(case)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    through = torch.autograd.grad(torch.vmap(function, tuple(in_dims))(*leaves).sin().sum(), leaves)
    loop = [function(*sample(leaves, in_dims, i)).sin().sum() for i in range(SIZE)]
    for got, want in zip(through, torch.autograd.grad(sum(loop), leaves), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", [replace(case, batch=0) for case in CASES], ids=str)
def test_no_samples(unemulated: Backend, case: Case) -> None:
    tensors, in_dims = batched(case, tuple(case.shapes), {}, unemulated.device)
    assert torch.vmap(function_of(case), tuple(in_dims))(*tensors).shape == (SIZE, *case.out_shape)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nested(unemulated: Backend, case: Case) -> None:
    outer, _ = batched(case, tuple(case.shapes), {}, unemulated.device)
    inner = [torch.stack([tensor, 2 * tensor], 1) for tensor in outer]
    function = function_of(case)
    out = torch.vmap(torch.vmap(function))(*inner)
    for i in range(SIZE):
        for j in range(2):
            expected = function(*(tensor[i, j] for tensor in inner))
            torch.testing.assert_close(out[i, j], expected, rtol=1e-12, atol=1e-13)

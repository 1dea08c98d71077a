"""vmap of both ops: any inputs batched along any dimension give what a loop over samples gives."""

from itertools import chain, combinations

import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, GhostHead, HadamardAttention, make, normal
from ops.checks import call
from torch import Tensor

BOTH = [
    GhostHead(channels=4, height=4, width=5, mul="shared", add="sample"),
    HadamardAttention(channels=4, height=4, width=5, proj_groups=2),
]
SIZE = 3


def _subsets(case: Case) -> list[tuple[Case, tuple[str, ...]]]:
    names = list(case.shapes)
    return [(case, some) for some in chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1))]


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


@pytest.mark.parametrize(("case", "names"), [*_subsets(BOTH[0]), *_subsets(BOTH[1])], ids=str)
def test_batched_inputs(backend: Backend, case: Case, names: tuple[str, ...]) -> None:
    tensors, in_dims = batched(case, names, {}, backend.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims))(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, -1])
@pytest.mark.parametrize(("case", "name"), [(case, name) for case in BOTH for name in case.shapes], ids=str)
def test_in_dims(backend: Backend, case: Case, name: str, dim: int) -> None:
    if dim > len(case.shapes[name]):
        dim = 0
    tensors, in_dims = batched(case, tuple(case.shapes), {name: dim}, backend.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims), out_dims=1)(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)], 1)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", [GhostHead(mul="none", add="shared"), GhostHead(add="none")], ids=str)
def test_without_a_matrix(backend: Backend, case: GhostHead) -> None:
    names = tuple(name for name, shape in case.shapes.items() if shape is not None)
    tensors, in_dims = batched(case, names, {}, backend.device)
    function = function_of(case)
    out = torch.vmap(function, tuple(in_dims))(*tensors)
    expected = torch.stack([function(*sample(tensors, in_dims, i)) for i in range(SIZE)])
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", BOTH, ids=str)
@pytest.mark.parametrize("parameters", ["shared", "batched"])
def test_gradient_of_every_sample(backend: Backend, case: Case, parameters: str) -> None:
    """vmap(grad) with the images batched, and the parameters of the op shared or batched too."""
    images = ("value", "attn", "query", "key")
    names = tuple(name for name in case.shapes if parameters == "batched" or name in images)
    tensors, in_dims = batched(case, names, {}, backend.device)
    function = function_of(case)
    gradient = torch.func.grad(lambda *args: function(*args).sin().sum(), tuple(range(len(tensors))))
    actual = torch.vmap(gradient, tuple(in_dims))(*tensors)
    rows = [gradient(*sample(tensors, in_dims, i)) for i in range(SIZE)]
    for name, got, want in zip(case.shapes, actual, zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(
            got, torch.stack(want), rtol=1e-11, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_gradient_through_vmap(backend: Backend, case: Case) -> None:
    tensors, in_dims = batched(case, tuple(case.shapes), {}, backend.device)
    function = function_of(case)
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    through = torch.autograd.grad(torch.vmap(function, tuple(in_dims))(*leaves).sin().sum(), leaves)
    loop = [function(*sample(leaves, in_dims, i)).sin().sum() for i in range(SIZE)]
    for got, want in zip(through, torch.autograd.grad(sum(loop), leaves), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("case", [GhostHead(batch=0, add="sample"), HadamardAttention(batch=0)], ids=str)
def test_no_samples(backend: Backend, case: Case) -> None:
    tensors, in_dims = batched(case, tuple(case.shapes), {}, backend.device)
    assert torch.vmap(function_of(case), tuple(in_dims))(*tensors).shape == (SIZE, *case.out_shape)


@pytest.mark.parametrize("case", BOTH, ids=str)
def test_nested(backend: Backend, case: Case) -> None:
    outer, _ = batched(case, tuple(case.shapes), {}, backend.device)
    inner = [torch.stack([tensor, 2 * tensor], 1) for tensor in outer]
    function = function_of(case)
    out = torch.vmap(torch.vmap(function))(*inner)
    for i in range(SIZE):
        for j in range(2):
            expected = function(*(tensor[i, j] for tensor in inner))
            torch.testing.assert_close(out[i, j], expected, rtol=1e-12, atol=1e-13)

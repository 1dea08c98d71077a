"""Run a case and compare what it gives with the float64 oracle."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import elsa_ext
import numpy as np
import torch
from ops.cases import Case, Tensors, make, make_grad
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

# In units of the dtype's epsilon: what the formula may lose, which in float32 has logits of 8 and hence attention that
# is off by 8 units; what of it counts where a backend is compared; and what a backend may lose where the formula loses
# nothing. Float64 may lose more, because the oracle itself rounds in it.
FORMULA_UNITS = {torch.float64: 32, torch.float32: 32, torch.bfloat16: 16, torch.float16: 16}
COUNTED_UNITS = 16
FLOOR_UNITS = {torch.float64: 32, torch.float32: 4, torch.bfloat16: 1, torch.float16: 1}


def call(case: Case, tensors: Tensors) -> Tensor:
    """Call the public function of ``case``."""
    return forward(case)(*tensors.values(), **case.options)


def evaluate(case: Case, tensors: Tensors, grad: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
    """The result of ``case`` as "out", and the gradients of the ``wanted`` tensors, or of all, under their names."""
    wanted = case.given if wanted is None else wanted
    leaves = {name: None if t is None else t.detach().requires_grad_(name in wanted) for name, t in tensors.items()}
    out = call(case, leaves)
    grads = torch.autograd.grad(out, [leaves[name] for name in wanted], grad)
    return {"out": out.detach(), **dict(zip(wanted, grads, strict=True))}


def formula(case: Case, tensors: Tensors, grad: Tensor) -> dict[str, Tensor]:
    """What ``evaluate`` gives by the plain-PyTorch formula, on the CPU: a GPU would compute its convolution in TF32."""
    with elsa_ext.use_backend("torch"):
        return evaluate(case, {name: None if t is None else t.cpu() for name, t in tensors.items()}, grad.cpu())


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().to("cpu", torch.float64).numpy()


def oracle(case: Case, tensors: Tensors, grad: Tensor) -> dict[str, np.ndarray]:
    """What ``evaluate`` would give in exact arithmetic, nearly: float64 loops over the same inputs."""
    arrays = [_array(tensor) for tensor in tensors.values()]
    out = getattr(elsa_ext.reference, case.op)(*arrays, **case.options)
    backward = getattr(elsa_ext.reference, f"{case.op}_backward")
    grads = backward(_array(grad), *arrays, **case.options)
    return {"out": out, **{name: g for name, g in zip(tensors, grads, strict=True) if tensors[name] is not None}}


def errors(actual: Tensor, exact: np.ndarray) -> tuple[float, float]:
    """The largest error relative to the largest entry of ``exact``, and the relative L2 error."""
    if exact.size == 0:
        return 0.0, 0.0
    given = actual.detach().to("cpu", torch.float64).numpy()
    apart = np.isinf(exact)  # logits of taps that do not count
    if (given[apart] != exact[apart]).any():
        return np.inf, np.inf
    given, exact = given[~apart], exact[~apart]
    if exact.size == 0:
        return 0.0, 0.0
    difference = given - exact
    scale = max(np.abs(exact).max(), np.finfo(np.float64).tiny)
    norm = max(np.linalg.norm(exact), np.finfo(np.float64).tiny)
    return float(np.abs(difference).max() / scale), float(np.linalg.norm(difference) / norm)


class NoYardstick(AssertionError):
    """The formula, which ``assert_close`` measures by, is off itself: it is wrong, or a sum that nearly cancels is."""


def assert_close(name: str, actual: Tensor, plain: Tensor, exact: np.ndarray) -> None:
    """Assert that ``actual`` is off by at most twice what ``plain``, the formula in that dtype, is off, and a floor.

    What the formula is off by more than ``COUNTED_UNITS`` allows nothing more.
    """
    assert tuple(actual.shape) == exact.shape, f"{name}: shape {tuple(actual.shape)}, oracle {exact.shape}"
    assert actual.dtype == plain.dtype, f"{name}: {actual.dtype}, formula {plain.dtype}"
    eps = torch.finfo(actual.dtype).eps
    formula, floor = FORMULA_UNITS[actual.dtype], FLOOR_UNITS[actual.dtype]
    for kind, error, error_of_plain in zip(("maximum", "L2"), errors(actual, exact), errors(plain, exact), strict=True):
        units, plain_units = error / eps, error_of_plain / eps
        if plain_units > formula:
            raise NoYardstick(f"{name}: {kind} error of the formula is {plain_units:.2f} eps")
        limit = 2 * min(plain_units, COUNTED_UNITS) + floor
        assert units <= limit, f"{name}: {kind} error {units:.2f} eps, of the formula {plain_units:.2f} eps"


def assert_rounded_once(name: str, actual: Tensor, exact: np.ndarray) -> None:
    """Assert that ``actual`` is ``exact``, accumulated in float32 or better, and rounded to its dtype once."""
    difference = np.abs(actual.detach().to("cpu", torch.float64).numpy() - exact)
    half_a_unit = torch.finfo(actual.dtype).eps / 2 * np.abs(exact)
    excess = (difference - half_a_unit).max() / np.abs(exact).max()
    assert excess <= 1e-5, f"{name} is {excess:.1e} of its maximum further off than one rounding"


def check_conversions(dtype: torch.dtype, device: str) -> None:
    """Read every 16-bit pattern, and round every kind of float32 to 16 bits, as PyTorch does."""
    one = torch.ones((), dtype=dtype, device=device)

    def identity(value: Tensor, mul: Tensor | None) -> Tensor:
        value = value.view(1, -1, 1, 1)
        mul = None if mul is None else mul.view(-1, 1, 1)
        return elsa_ext.ghost_head(value, one.view(1, 1, 1, 1), mul, kernel_size=1).flatten()

    patterns = torch.arange(2**16, device=device).to(torch.int16).view(dtype)
    torch.testing.assert_close(identity(patterns, None), patterns, rtol=0, atol=0, equal_nan=True)
    bits = torch.randint(-(2**31), 2**31, (2**16,), device=device).to(torch.int32)
    # Beside the random ones: every sign and exponent, half way between two 16-bit numbers and next to that.
    shift = 13 if dtype == torch.float16 else 16
    steps = torch.arange(2**9, device=device)[:, None] << 23 | torch.arange(8, device=device) << shift
    halfway = (steps[..., None] + (1 << shift - 1) + torch.tensor([-1, 0, 1], device=device)).flatten()
    numbers = torch.cat([bits, (halfway - 2**31).to(torch.int32)]).view(torch.float32)
    rounded = identity(one.expand(len(numbers)), numbers)
    torch.testing.assert_close(rounded, numbers.to(dtype), rtol=0, atol=0, equal_nan=True)


def check(
    case: Case,
    device: str,
    dtype: torch.dtype = torch.float64,
    matrix_dtype: torch.dtype | None = None,
    layouts: Mapping[str, str] | None = None,
    rounded_once: Collection[str] = (),
    wanted: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Compare ``case`` and its gradients with the oracle, see that no input changed, and return what came.

    ``rounded_once`` names the results that are to be as good as their dtype allows, where that is one of 16 bits;
    ``wanted`` the tensors whose gradients are taken, if it is not all of them.
    """
    tensors = make(case, dtype, device, matrix_dtype, layouts)
    grad = make_grad(case, dtype, device, (layouts or {}).get("grad", "contiguous"))
    before = {name: None if t is None else t.clone() for name, t in tensors.items()}
    actual = evaluate(case, tensors, grad, wanted)
    plain = formula(case, tensors, grad)
    exact = oracle(case, tensors, grad)
    for name, result in actual.items():
        assert_close(name, result, plain[name], exact[name])
        if name in rounded_once and result.dtype.itemsize == 2:
            assert_rounded_once(name, result, exact[name])
    for name, tensor in tensors.items():
        assert tensor is None or torch.equal(tensor, before[name]), f"{name} was written to"
    return actual


def forward_arguments(case: Case, **options: Any) -> dict[str, Any]:
    """Every argument of ``case`` by name; ``options`` are those of ``make``."""
    return {**make(case, **options), **case.options}


def backward_arguments(case: Case, **options: Any) -> dict[str, Any]:
    """Every argument of the backward op of ``case`` by name; ``options`` are those of ``make``."""
    arguments = forward_arguments(case, **options)
    layout = options.get("layouts", {}).get("grad", "contiguous")
    like = next(iter(arguments.values()))
    grad = make_grad(case, like.dtype, str(like.device), layout)
    return {"grad": grad, **case.backward_inputs(arguments), **arguments}


def forward(case: Case) -> Callable[..., Tensor]:
    """The public function of the op of ``case``."""
    return getattr(elsa_ext, case.op)


def registered(case: Case, backward: bool = False) -> torch._ops.OpOverload:
    """The registered op of ``case``, or that of its gradients."""
    return getattr(torch.ops.elsa, f"{case.op}_backward" if backward else case.op).default


def function_of(case: Case, tensors: Tensors, names: Iterable[str]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """``case`` as a function of the arguments ``names`` alone, and their values as leaves that require a gradient."""
    names = tuple(names)

    def function(*chosen: Tensor) -> Tensor:
        return call(case, {**tensors, **dict(zip(names, chosen, strict=True))})

    return function, tuple(tensors[name].detach().clone().requires_grad_() for name in names)


def to_fake(arguments: Mapping[str, Any], mode: FakeTensorMode) -> dict[str, Any]:
    """``arguments`` with fake tensors in the place of real ones."""
    return {name: mode.from_tensor(a) if isinstance(a, Tensor) else a for name, a in arguments.items()}

"""The oracle: every op and its gradients as scalar loops in float64, on NumPy arrays.

It is slow and shares no code with the kernels: what the tests hold every backend against. There is a function for every
op and one for its gradients, as ``ghost_head`` and ``ghost_head_backward``. They take what the op takes and check it
alike; that of the gradients takes the gradient of the result in front. A wheel has it for some versions of Python:
where it has not, a call raises an ``ImportError``.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ._library import compiled_part
from .ops.registration import OPS, check_backward

Array = NDArray[np.float64]


def __getattr__(name: str) -> Callable[..., Any]:
    if name.removesuffix("_backward") not in OPS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _oracle(name)


def __dir__() -> list[str]:
    return sorted([*globals(), *OPS, *(f"{name}_backward" for name in OPS)])


@cache
def _oracle(name: str) -> Callable[..., Any]:
    """Return the function of the op or of the gradients that ``name`` names."""
    op = OPS[name.removesuffix("_backward")]
    is_backward = name != op.name
    signature = _signature(op.forward.signature, is_backward)

    def oracle(*args: Any, **named: Any) -> Any:
        try:
            given = signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        given.apply_defaults()
        options = op.converted({option: given.arguments.pop(option) for option in op.options})
        arrays = {argument: _array(value) for argument, value in given.arguments.items()}
        shapes = {argument: _shape(array) for argument, array in arrays.items()}
        if is_backward:
            check_backward(op, shapes, options)
        else:
            op.check(name, **shapes, **options)
        words = {option: value for option, value in options.items() if isinstance(value, str)}
        numbers = {
            option: list(value) if isinstance(value, list) else [value]
            for option, value in options.items()
            if option not in words
        }
        results = compiled_part("reference").oracle(name, arrays, numbers, words)
        return results[0] if len(results) == 1 else tuple(results)

    oracle.__name__ = oracle.__qualname__ = name
    oracle.__signature__ = signature  # type: ignore[attr-defined]
    if is_backward:
        inputs = f"{', '.join(op.tensors[:-1])} and {op.tensors[-1]}"
        oracle.__doc__ = f"Compute the gradients of {inputs} in float64; None for one that is None."
    else:
        oracle.__doc__ = f"Compute :func:`elsa_ext.{name}` in float64; same shapes and errors."
    return oracle


def _signature(forward: inspect.Signature, is_backward: bool) -> inspect.Signature:
    grad = inspect.Parameter("grad", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return forward.replace(parameters=[*[grad] * is_backward, *forward.parameters.values()])


def _array(value: ArrayLike | None) -> Array | None:
    return None if value is None else np.asarray(value, dtype=np.float64, order="C")


def _shape(array: Array | None) -> torch.Tensor | None:
    return None if array is None else torch.empty(array.shape, dtype=torch.float64, device="meta")

"""What formulas in plain PyTorch have in common, and their derivatives by ``torch.func``."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .checks import memory_format


def effective_dilation(dilation: int, height: int, width: int) -> int:
    """Beyond the size of the map every dilation is the same: the padding need not grow with it."""
    # A comparison, not min(): what is compiled for one size stays good for others.
    return dilation if dilation <= height or dilation <= width else max(height, width)


def empty_result(size: Sequence[int], *inputs: Tensor | None) -> Tensor:
    """Return an empty result that depends on every input, so that each gets its gradient of zeros."""
    first, *others = (tensor for tensor in inputs if tensor is not None)
    out = first.new_empty(size) + 0 * first.sum()
    for tensor in others:
        out = out + 0 * tensor.sum().to(first.dtype)
    return out.clone(memory_format=memory_format(first))


def _vjp(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None]
) -> tuple[list[int], tuple[Tensor, ...], Callable[..., tuple[Tensor, ...]]]:
    """Return which inputs are given, and what ``torch.func.vjp`` gives for ``function`` of those."""
    given = [index for index, tensor in enumerate(inputs) if tensor is not None]

    def of_given(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments: list[Tensor | None] = [None] * len(inputs)
        for index, tensor in zip(given, tensors, strict=True):
            arguments[index] = tensor
        return function(*arguments)

    outputs, back, *_ = torch.func.vjp(of_given, *(inputs[index] for index in given))
    return given, outputs, back


def pullback(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], directions: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradient of ``⟨directions, function(*inputs)⟩`` by every input; None by one that is None."""
    given, _, back = _vjp(function, inputs)
    parts = dict(zip(given, back(tuple(directions)), strict=True))
    return tuple(parts.get(index) for index in range(len(inputs)))


def pushforward(
    function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor | None], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return the derivatives of ``function(*inputs)`` along ``tangents``, of which None stands for zeros.

    It is the transpose of the pullback, which is linear: ``torch.func.jvp`` cannot run inside a level of
    ``torch.autograd.forward_ad``.
    """
    given, outputs, back = _vjp(function, inputs)
    transposed = torch.func.vjp(back, tuple(map(torch.zeros_like, outputs)))[1]
    along = []
    for index in given:
        tangent, tensor = tangents[index], inputs[index]
        along.append(torch.zeros_like(tensor) if tangent is None else tangent)  # type: ignore[arg-type]
    parts: tuple[Tensor, ...] = transposed(tuple(along))[0]
    return parts

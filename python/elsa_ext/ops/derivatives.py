"""Derivatives beyond the first: as sums of calls of the op where its file writes them so, or else of its formula.

Both classes give, for the tensors of a call (or, beside ``saved``, of a call of the backward op):

- ``tangent``: the derivative of the op along tangents, of which None stands for zeros;
- ``tangents_of_backward``: the same of the backward op, for the gradients that are asked for;
- ``gradients_of_backward``: the gradients of ``⟨directions, backward op⟩`` by its tensors, of which some are wanted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from .formula import pullback, pushforward
from .op import Op, Options, Tensors, Term


class OfTerms:
    """Derivatives of an op whose derivative along directions is a sum of calls of itself."""

    def __init__(self, op: Op, write: Callable[..., list[Term]]) -> None:
        self._op, self._write = op, write

    def tangent(self, tensors: Tensors, tangents: Tensors, options: Options) -> Tensor | None:  # noqa: D102
        return self._sum(self._write(*tensors, *tangents), options)

    def tangents_of_backward(  # noqa: D102
        self, saved: Sequence[Any], tangents: Tensors, options: Options, asked: Sequence[bool]
    ) -> Tensors:
        grad, *tensors = saved
        to_grad, *to_tensors = tangents
        parts = self._gradients(grad, self._write(*tensors, *to_tensors), options, asked)
        if to_grad is None:
            return parts
        straight = self._op.apply_backward((to_grad, *tensors), options, asked)
        return [_add(pair) for pair in zip(parts, straight, strict=True)]

    def gradients_of_backward(  # noqa: D102
        self, saved: Sequence[Any], directions: Tensors, options: Options, wanted: Sequence[bool]
    ) -> Tensors:
        grad, *tensors = saved
        # ⟨grad, …⟩ of the derivative along the directions has the same gradients: second derivatives commute.
        terms = self._write(*tensors, *directions)
        to_grad = self._sum(terms, options) if wanted[0] else None
        return [to_grad, *self._gradients(grad, terms, options, wanted[1:])]

    def _sum(self, terms: Sequence[Term], options: Options) -> Tensor | None:
        return _add(self._op.apply(tensors, options) for tensors, _ in terms)

    def _gradients(self, grad: Tensor, terms: Sequence[Term], options: Options, wanted: Sequence[bool]) -> Tensors:
        """Add up what the terms give to the gradients that are wanted."""
        gradients = []
        for tensors, is_input in terms:
            needed = [mine and want for mine, want in zip(is_input, wanted, strict=True)]
            if any(needed):
                gradients.append(self._op.apply_backward((grad, *tensors), options, needed))
        return [_add(parts) for parts in zip(*gradients, strict=True)] if gradients else [None] * len(wanted)


class OfFormula:
    """Derivatives of the formula in plain PyTorch."""

    def __init__(self, op: Op) -> None:
        self._op = op

    def tangent(self, tensors: Tensors, tangents: Tensors, options: Options) -> Tensor | None:  # noqa: D102
        def result(*tensors: Any) -> tuple[Tensor]:
            return (self._op.formula(*tensors, **self._op.completed(options)),)

        return pushforward(result, tensors, tangents)[0]

    def tangents_of_backward(  # noqa: D102
        self, saved: Sequence[Any], tangents: Tensors, options: Options, asked: Sequence[bool]
    ) -> Tensors:
        parts = iter(pushforward(self._gradients(options, asked), saved, tangents) if any(asked) else ())
        return [next(parts) if ask else None for ask in asked]

    def gradients_of_backward(  # noqa: D102
        self, saved: Sequence[Any], directions: Tensors, options: Options, wanted: Sequence[bool]
    ) -> Tensors:
        asked = [direction is not None for direction in directions]
        given = [direction for direction in directions if direction is not None]
        return pullback(self._gradients(options, asked), saved, given) if given else [None] * len(saved)

    def _gradients(self, options: Options, asked: Sequence[bool]) -> Callable[..., tuple[Tensor, ...]]:
        """Return the function of the tensors of the backward op that gives the gradients that are asked for."""

        def gradients(*saved: Any) -> tuple[Any, ...]:
            given = self._op.completed(options)
            parts = self._op.gradients(*saved, **given) if self._op.gradients else self._of_formula(saved, given)
            return tuple(part for part, ask in zip(parts, asked, strict=True) if ask)

        return gradients

    def _of_formula(self, saved: Sequence[Any], options: Options) -> Tensors:
        def result(*tensors: Any) -> tuple[Tensor]:
            return (self._op.formula(*tensors, **options),)

        return pullback(result, saved[-len(self._op.tensors) :], saved[:1])


def _add(parts: Iterable[Tensor | None]) -> Tensor | None:
    """Add up what there is, if anything."""
    given = [part for part in parts if part is not None]
    return sum(given[1:], start=given[0]) if given else None

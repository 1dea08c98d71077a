"""What a test file of an op hands to the tests that all ops share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from ops.cases import Case
from torch import Tensor

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class BadCall:
    """A valid ``case`` with some arguments replaced; ``words`` are the argument and the numbers its message names."""

    name: str
    words: str
    """Separated by spaces."""
    case: Case
    changes: Mapping[str, Change]

    def __str__(self) -> str:
        return f"{self.case.op}-{self.name}"

    def apply(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The valid ``arguments`` with this call's changes."""
        return {name: self.changes[name](a) if name in self.changes else a for name, a in arguments.items()}


def be(new: Any) -> Change:
    """Another value."""
    return lambda _: new


def to(target: torch.dtype | str) -> Change:
    """Another dtype or device."""
    return lambda tensor: tensor.to(target)


def shape(*sizes: int) -> Change:
    """Zeros of another shape."""
    return lambda tensor: tensor.new_zeros(sizes)


def drop(dim: int) -> Change:
    """All but the last of a dimension."""
    return lambda tensor: tensor.narrow(dim, 0, tensor.shape[dim] - 1)


def squeeze(tensor: Tensor) -> Tensor:
    """One dimension less."""
    return tensor[0]


def unsqueeze(tensor: Tensor) -> Tensor:
    """One dimension more."""
    return tensor[None]


@dataclass(frozen=True)
class Count:
    """The multiply-adds of ``case``: of its result, or of the gradients of ``wanted``."""

    case: Case
    multiply_adds: int
    wanted: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.case}-{'_'.join(self.wanted) or 'forward'}"


@dataclass(frozen=True)
class Op:
    """An op by its cases. Each list begins with the plainest of its kind."""

    small: Case
    """Every tensor given, and few elements: what numerical derivatives are taken of."""
    options: Sequence[Case]
    """Every option in as small a call, for derivatives."""
    sizes: Sequence[Case]
    """Every size and option that a kernel can trip over, for the comparison with the oracle."""
    edges: Sequence[Case]
    """One of everything that changes shapes or what is given, for what knows no numbers."""
    empty: Sequence[Case]
    """Results without an element."""
    kernels: Sequence[Case]
    """Several tiles, blocks and warps for every kernel there is, for what depends on the order of things."""
    vectors: Sequence[Case]
    """Full vectors, parts of one and K with code of its own, for every instruction set of a CPU."""
    laid_out: Sequence[tuple[Case, torch.dtype]]
    """A call for every way in which kernels read memory."""
    compiled: Sequence[Case]
    """Calls of ``compiled_sizes``, which compile with dynamic sizes."""
    bad_calls: Sequence[BadCall]
    bad_backward_calls: Sequence[BadCall]
    """What is wrong with arguments that the backward op alone has."""
    counts: Sequence[Count]
    random: st.SearchStrategy[Case]
    rounded_once: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By backend, the results of 16-bit maps that are the exact ones rounded, not more."""

    @property
    def name(self) -> str:
        """The name of the op."""
        return self.small.op

    @property
    def default(self) -> Case:
        """A call of the default sizes."""
        return type(self.small)()

    def __str__(self) -> str:
        return self.name

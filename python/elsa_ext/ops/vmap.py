"""Function transforms: batching rules, and when torch.library's autograd has to step aside."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Dims = Sequence[int | None]


def transforms_active() -> bool:
    """Tell whether a torch.func transform is: it takes an ``autograd.Function``, not torch.library's autograd."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move a mapped dimension of ``size`` into the batch dimension, (N, B, …) → (N·B, …)."""
    mapped = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
    return mapped.flatten(0, 1)


def loop(op: Callable[..., Any], size: int, in_dims: Dims, args: Sequence[Any], options: dict[str, Any]) -> Any:
    """Call ``op`` once for every index of the mapped dimension and stack the results."""
    results = [
        op(*(arg if dim is None else arg.select(dim, k) for arg, dim in zip(args, in_dims, strict=True)), **options)
        for k in range(size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])

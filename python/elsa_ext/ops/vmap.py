"""Batching rules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .op import Op

Dims = Sequence[int | None]


def rule(op: Op) -> Callable[..., tuple[Tensor, int]]:
    """Return the rule of ``op``: one call for all indices if a batch of it can hold them, or one for each."""

    def batched(info: Any, in_dims: Dims, *tensors: Any, **options: Any) -> tuple[Tensor, int]:
        size, given = info.batch_size, list(zip(op.tensors, tensors, in_dims, strict=False))
        if any(dim is not None and name not in op.maps and name not in op.per_sample for name, _, dim in given):
            return loop(op.forward.call, size, in_dims, tensors, options)
        batch = (tensors[0] if in_dims[0] is None else tensors[0].select(in_dims[0], 0)).shape[0]

        def folded(name: str, tensor: Tensor | None, dim: int | None) -> Tensor | None:
            if tensor is None or (name not in op.maps and name not in op.per_sample):
                return tensor
            if name in op.maps:
                return fold(tensor, dim, size)
            rank = op.per_sample[name]
            if callable(rank):
                shape = (tensor if dim is None else tensor.select(dim, 0)).shape
                rank = rank(shape, options)
            return spread(tensor, dim, size, batch, rank)

        return op.forward.call(*(folded(*argument) for argument in given), **options).unflatten(0, (size, batch)), 0

    return batched


def backward_rule(op: Op) -> Callable[..., tuple[Any, Any]]:
    """Return the rule of the backward of ``op``, whose gradients are sums over a batch: one call for every index."""

    def batched(info: Any, in_dims: Dims, *tensors: Any, **options: Any) -> tuple[Any, Any]:
        return loop(op.backward.call, info.batch_size, in_dims, tensors, options)

    return batched


def fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move a mapped dimension of ``size`` into the batch dimension, (N, B, …) → (N·B, …)."""
    mapped = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
    return mapped.flatten(0, 1)


def spread(tensor: Tensor, dim: int | None, size: int, batch: int, rank: int) -> Tensor:
    """Fold a mapped tensor to one per sample of the folded batch; one that all of them share stays as it is.

    Args:
        tensor: With a batch dimension or without, beside the mapped one.
        dim: Its mapped dimension.
        size: How many indices that has.
        batch: Samples of one index.
        rank: Its number of dimensions without both.
    """
    if dim is None and tensor.dim() == rank:
        return tensor
    mapped = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
    if mapped.dim() == rank + 1:
        mapped = mapped.unsqueeze(1).expand(-1, batch, *mapped.shape[1:])
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

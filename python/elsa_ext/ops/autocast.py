"""Autocast for ops with keyword-only arguments, which ``torch.library.register_autocast`` does not take."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def is_enabled(device: str) -> bool:
    """Tell whether autocast is on for a device; meta tensors have none, and asking for it is an error."""
    return device != "meta" and torch.is_autocast_enabled(device)


def cast(tensors: Sequence[Tensor | None], is_cast: Sequence[bool], device: str) -> list[Any]:
    """Cast the tensors that ``is_cast`` says and autocast casts: those in floating point, float64 apart."""
    dtype = torch.get_autocast_dtype(device)

    def eligible(tensor: Tensor | None) -> bool:
        return tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64

    pairs = zip(tensors, is_cast, strict=False)  # the dispatcher leaves out what equals its default
    return [tensor.to(dtype) if wanted and eligible(tensor) else tensor for tensor, wanted in pairs]  # type: ignore[union-attr]


def kernel(op: Callable[..., Any], is_cast: Sequence[bool], device: str) -> Callable[..., Any]:
    """Return the kernel that calls ``op`` with the tensors cast."""

    def below_autocast(*tensors: Any, **options: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return op(*cast(tensors, is_cast, device), **options)

    return below_autocast

"""Autocast for ops with keyword-only arguments, which ``torch.library.register_autocast`` does not take."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("elsa", "IMPL")


def is_enabled(device: str) -> bool:
    """Tell whether autocast is on for a device; meta tensors have none, and asking for it is an error."""
    return device != "meta" and torch.is_autocast_enabled(device)


def cast(tensors: Sequence[Tensor | None], device: str) -> list[Any]:
    """Cast the tensors that autocast casts: those in floating point, float64 apart."""
    dtype = torch.get_autocast_dtype(device)

    def eligible(tensor: Tensor | None) -> bool:
        return tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64

    return [tensor.to(dtype) if eligible(tensor) else tensor for tensor in tensors]  # type: ignore[union-attr]


def register(op: Callable[..., Any], casts: int) -> None:
    """Have autocast cast the first ``casts`` arguments of ``op``."""
    name = op.name().split("::")[1]  # type: ignore[attr-defined]
    for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):

        def below_autocast(*args: Any, _device: str = device, **options: Any) -> Any:
            with torch.autocast(_device, enabled=False):
                return op(*cast(args[:casts], _device), *args[casts:], **options)

        _LIBRARY.impl(name, below_autocast, key)

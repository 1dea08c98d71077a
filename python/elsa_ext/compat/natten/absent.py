"""What natten has and this package has not: it is imported as always, and says so when it is called."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import Tensor

PLACE = "elsa_ext.compat.natten"


def absent(name: str, what: str) -> Callable[..., NoReturn]:
    """Return what stands for ``natten``'s ``name``, and raises when it is called."""

    def call(*args: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"{PLACE}: {name} is not there, elsa_ext has no {what}")

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Raise an error: elsa_ext has no {what}."
    return call


def refuse(name: str, tensors: Sequence[Tensor], **arguments: Any) -> None:
    """Raise an error if one of ``arguments`` is given, or one of ``tensors`` is nested."""
    for argument, given in arguments.items():
        if given is not None:
            shown = "tensors" if isinstance(given, Tensor) else repr(given)
            raise NotImplementedError(f"{PLACE}: {name} has no {argument}, got {shown}")
    if any(tensor.is_nested for tensor in tensors):
        raise NotImplementedError(f"{PLACE}: {name} takes no nested tensors")

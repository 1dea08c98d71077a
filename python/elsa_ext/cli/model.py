"""Models by name: this package's and timm's."""

from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import nn

from .errors import CommandError


def check_name(name: str) -> None:
    """Raise a ``CommandError`` that suggests others if timm has no model ``name``."""
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models())
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(timm.list_models('elsa_*'))}"
        raise CommandError(f"unknown model {name!r}; {hint}")


def input_config(name: str, image_size: int | None) -> dict[str, Any]:
    """Return the arguments of timm's ``create_transform`` for a model, at its own image size or at ``image_size``."""
    check_name(name)
    config = timm.get_pretrained_cfg(name)
    resolved: dict[str, Any] = resolve_data_config({"img_size": image_size}, config.to_dict() if config else {})
    return resolved


def model_kwargs(
    name: str,
    classes: int,
    image_size: int | None,
    drop_path: float | None = None,
    spec: str | None = None,
    kernel_size: int | None = None,
) -> dict[str, Any]:
    """Return the arguments that build the model for so many classes, and for what else is given.

    Raises:
        CommandError: ``spec`` or ``kernel_size`` is given, and the model has no local operator to choose.
    """
    optional = {"drop_path_rate": drop_path, "spec": spec, "kernel_size": kernel_size}
    kwargs = {"num_classes": classes, **{key: value for key, value in optional.items() if value is not None}}
    odd = [key for key in ("spec", "kernel_size") if key in kwargs and not name.startswith("elsa_swin_")]
    if odd:
        raise CommandError(f"--{odd[0].replace('_', '-')} is for the models elsa_swin_*, got --model {name}")
    if image_size is not None and timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        kwargs["img_size"] = image_size
    return kwargs


def build_model(name: str, kwargs: dict[str, Any], input_size: tuple[int, int, int]) -> nn.Module:
    """Build a model and try it on an empty image, so that a size it cannot take is reported before any work.

    Raises:
        CommandError: There is no such model, or it does not take these arguments or images of this size.
    """
    check_name(name)
    try:
        model = timm.create_model(name, **kwargs).eval()
        with torch.inference_mode():
            model(torch.zeros(1, *input_size))
    except Exception as error:  # whatever a model of timm stumbles over
        size = " x ".join(str(side) for side in input_size[1:])
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CommandError(f"{name} cannot be built for images of {size} pixels: {reason}") from error
    return model

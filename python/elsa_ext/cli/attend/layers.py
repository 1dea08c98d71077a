"""The local layers of a model: which there are, and what they look at in an image."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ...models.local import of_windows
from ...nn import LocalAttention, LocalWeights, attention_weights
from ...nn.weights import has_weights
from ..errors import CommandError


def find_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the local layers by name; in the place of the window attention of timm's Swin the block around it."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if has_weights(module):
            found[name] = module
        elif isinstance(module, SwinTransformerBlock):
            found[f"{name}.attn"] = module
    return found


def describe(layer: nn.Module) -> str:
    """Return what kind of layer it is, in a few words."""
    if isinstance(layer, LocalAttention):
        return layer.spec + shifted(layer.shift)
    if isinstance(layer, SwinTransformerBlock):
        return "WindowAttention" + shifted(layer.shift_size)
    return type(layer).__name__


def shifted(shift: Sequence[int]) -> str:
    """Say by how much windows are shifted, if they are."""
    return f" shifted by {shift[0]} rows and {shift[1]} columns" if any(shift) else ""


def look(model: nn.Module, images: Tensor, layers: dict[str, nn.Module]) -> dict[str, LocalWeights]:
    """Run a model, and return what these of its layers look at.

    Raises:
        CommandError: One of them has not been called, or cannot be looked into.
    """
    inputs = inputs_of(model, images, layers.values())
    found = {}
    for name, layer in layers.items():
        if layer not in inputs:
            raise CommandError(f"the model does not call its layer {name}")
        try:
            with torch.inference_mode():
                found[name] = weights_of(layer, inputs[layer])
        except ValueError as error:
            raise CommandError(f"cannot look into {name}: {error}") from error
    return found


def inputs_of(model: nn.Module, images: Tensor, layers: Iterable[nn.Module]) -> dict[nn.Module, Tensor]:
    """Run a model, and return the first input of each of the layers that it calls."""
    inputs: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, arguments: Any) -> None:
        inputs.setdefault(layer, arguments[0].clone())

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def weights_of(layer: nn.Module, x: Tensor) -> LocalWeights:
    """Return what a layer, or the attention in a block of timm's Swin, looks at."""
    if not isinstance(layer, SwinTransformerBlock):
        return attention_weights(layer, x)
    for axis in (0, 1):
        length, window, shift = x.shape[axis + 1], layer.window_size[axis], layer.shift_size[axis]
        if shift and length % window:
            raise ValueError(
                f"timm shifts a map of {x.shape[1]} x {x.shape[2]} before it fills up the windows of {window}"
            )
    return attention_weights(of_windows(layer), layer.norm1(x))

"""Weights of the official ELSA-Swin in timm's naming."""

import argparse
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = ("state_dict", "model", "state_dict_ema")
_BUFFERS = (".attn.relative_id", ".attn_mask")
_LISTED = 10


def load_official_checkpoint(model: nn.Module, path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Load an official ELSA-Swin checkpoint into an ELSA-Swin of this package.

    Everything is checked first: on an error the model is as it was.

    Args:
        model: From ``timm.create_model("elsa_swin_…")``, with as many classes as the checkpoint.
        path_or_state_dict: The file, read with ``weights_only=True``, or its content: a state dict, or a dict that
            holds one as ``state_dict``, ``model`` or ``state_dict_ema``, tried in this order.

    Raises:
        ValueError: It is not a state dict, or does not fit the model. The message names what is missing, left over or
            of another shape, as the model names it, or the two numbers of classes.
        OSError: The file cannot be read.
        pickle.UnpicklingError: The file holds more than weights and plain data.

    Example:
        >>> model = timm.create_model("elsa_swin_tiny")
        >>> load_official_checkpoint(model, "elsa_swin_tiny.pth.tar")
    """
    checkpoint = path_or_state_dict
    if not isinstance(checkpoint, Mapping):
        # The official training script stores its parsed command line beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state_dict = convert_official(_state_dict(checkpoint))
    _check_fit(state_dict, model)
    model.load_state_dict(state_dict)


def convert_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reorder an official ELSA-Swin state dict as timm's Swin has it; one of timm's naming stays as it is.

    Official stages end with the downsampling that timm's begin with. Official window attention fuses value, query, key
    in this order, and keeps its relative position biases per head and by the offset of key from query; timm fuses
    query, key, value, and keeps the biases per offset of query from key.
    """
    stage_offset = int(any(name.startswith("layers.0.downsample.") for name in state_dict))
    windows = {name[:-2] for name in state_dict if name.endswith(".attn.rb")}

    def convert(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        head, attn, last = name.rpartition(".attn.")
        if head + attn in windows:
            name, tensor = _convert_window(last, tensor)
            return head + attn + name, tensor
        name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + stage_offset}.downsample.", name)
        return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name), tensor

    return dict(convert(name, tensor) for name, tensor in state_dict.items() if not name.endswith(_BUFFERS))


def _convert_window(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Convert one parameter of an official window attention, whose prefix ends in ``attn.``."""
    if name == "rb":
        return "relative_position_bias_table", tensor.flip(-1).transpose(0, -1)
    if name.startswith("pre_proj."):
        return name.replace("pre_proj", "qkv"), tensor.roll(-(len(tensor) // 3), 0)
    return name.replace("post_proj", "proj"), tensor


def _state_dict(checkpoint: object) -> dict[str, Tensor]:
    """Unwrap the state dict of a checkpoint, without the prefix that a data-parallel model gives."""
    if isinstance(checkpoint, Mapping):
        checkpoint = next((checkpoint[name] for name in _CONTAINERS if name in checkpoint), checkpoint)
    if not isinstance(checkpoint, Mapping) or not all(isinstance(value, Tensor) for value in checkpoint.values()):
        raise ValueError(
            "load_official_checkpoint: expected a dict of tensors, or one under 'state_dict', 'model' or "
            f"'state_dict_ema', got {_describe(checkpoint)}"
        )
    return {name.removeprefix("module."): tensor for name, tensor in checkpoint.items()}


def _describe(checkpoint: object) -> str:
    if not isinstance(checkpoint, Mapping):
        return type(checkpoint).__name__
    return f"a dict with {_listed(f'{name!r}: {type(value).__name__}' for name, value in checkpoint.items())}"


def _check_fit(state_dict: Mapping[str, Tensor], model: nn.Module) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    unfit = {name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)}
    if not unfit:
        return
    if all(name.startswith("head.fc.") for name in unfit):
        theirs, ours = (shapes.get("head.fc.weight", (0,))[0] for shapes in (given, expected))
        raise ValueError(
            f"load_official_checkpoint: the checkpoint has {theirs} classes, the model {ours}: create the model with "
            f"num_classes={theirs}, load, then call model.reset_classifier({ours})"
        )
    problems = {
        "missing": [name for name in expected if name not in given],
        "left over": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name]} for {expected[name]}" for name in expected if name in given and name in unfit
        ],
    }
    raise ValueError(
        "load_official_checkpoint: the checkpoint does not fit the model; "
        + "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
    )


def _listed(names: Iterable[str]) -> str:
    """Join names, the first few of many."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

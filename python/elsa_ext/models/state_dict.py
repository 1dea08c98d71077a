"""State dicts as training leaves them: read, taken out of what holds them, without the names that wrappers add."""

import argparse
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

Weights = str | os.PathLike[str] | Mapping[str, Any] | nn.Module

_FIRST = ("state_dict", "model", "state_dict_ema")
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|average|averaged)(_|$)", re.IGNORECASE)
# torch.compile, FSDP and activation checkpointing put these anywhere in a name.
_INNER = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_THOP = re.compile(r"(^|\.)total_(ops|params)$")  # what thop.profile leaves in the modules that it counted
_LISTED = 10


def _harmless() -> list[Any]:
    """Return what training scripts store beside weights: parsed command lines, and metrics as NumPy's numbers."""
    scalar = np.float64(0).__reduce__()[0]
    numbers = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"]
    # NumPy 1 and 2 write two names of the same function.
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [argparse.Namespace, np.dtype, *names, *numbers]


def read_state_dict(caller: str, source: Weights, wanted: Iterable[str]) -> dict[str, Tensor]:
    """Read the weights of a model, wherever in ``source`` they are, by the names that the model itself gives them.

    Several state dicts in one dict: ``state_dict`` is taken before ``model``, either before others, and the average of
    weights (``state_dict_ema``, ``model_ema``, …) only where there is nothing else.

    Args:
        caller: Name of the function that errors name.
        source: A file, .safetensors or one that ``torch.load(weights_only=True)`` reads; a module; a state dict; or a
            dict that holds a module or a state dict, at any depth.
        wanted: Names of the model's own parameters and buffers.

    Raises:
        ValueError: There are no weights, or several and nothing tells which; or the file is damaged.
        OSError: The file cannot be read.
        pickle.UnpicklingError: The file holds more than weights and plain data.
    """
    content = _load(caller, source) if isinstance(source, (str, os.PathLike)) else source
    found = content if _is_state_dict(content) else _find(caller, content)
    if found is None:
        raise ValueError(
            f"{caller}: expected a module, a dict of tensors, or a dict that holds either, got {_describe(content)}"
        )
    return unwrap_names(found, wanted)


def unwrap_names(state_dict: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """Remove what wrappers add to the names of a model's parameters.

    ``_orig_mod`` and the like go anywhere. First components, be they ``module``, ``model`` or others, go if all names
    have them and more first components are the model's without them. Left out are, beside plain weights, an average
    under a name like ``ema`` or ``n_averaged``, and what thop adds.

    Args:
        state_dict: Tensors by names that wrappers may have changed.
        wanted: Names of the model's own parameters and buffers.
    """
    top = _heads(wanted)
    names = {_INNER.sub("", name): tensor for name, tensor in state_dict.items() if not _THOP.search(name)}
    levels = []
    while True:
        heads = _heads(names)
        heads = {head for head in heads if head in top or not _AVERAGE.search(head)} or heads
        names = {name: tensor for name, tensor in names.items() if name.partition(".")[0] in heads}
        levels.append(names)
        if len(heads) != 1 or not all("." in name for name in names):
            break
        names = {name.partition(".")[2]: tensor for name, tensor in names.items()}
    return max(levels, key=lambda level: len(_heads(level) & top))


def listed(names: Iterable[str]) -> str:
    """Join names, the first few of many."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _heads(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _load(caller: str, path: str | os.PathLike[str]) -> Any:
    name = os.fspath(path)
    try:
        if name.endswith(".safetensors"):
            return load_file(name)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # of files that are refused in the next moment
            return torch.load(name, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # depending on where the damage is, anything from EOFError to UnpicklingError
        more = re.search(r"GLOBAL (\S+)", str(error))
        if more is not None:
            raise pickle.UnpicklingError(
                f"{caller}: {name} holds more than weights, {more[1]}, whose loading runs code: if you trust where it "
                f"comes from, pass torch.load({name!r}, map_location='cpu', weights_only=False) in its place"
            ) from error
        if "TorchScript" in str(error):
            raise ValueError(f"{caller}: {name} is a TorchScript file: pass torch.jit.load({name!r})") from error
        raise ValueError(f"{caller}: {name} is not a checkpoint, or is damaged") from error


def _find(caller: str, content: object) -> Mapping[str, Tensor] | None:
    """Find the one state dict that ``content`` is or holds."""
    if isinstance(content, nn.Module):
        return content.state_dict()
    if not isinstance(content, Mapping):
        return None
    if _is_state_dict(content) and any("." in name for name in content):  # a generator's state, say, has no dots
        return content
    for key in _FIRST:
        if key in content and (found := _find(caller, content[key])) is not None:
            return found
    held = {key: found for key, value in content.items() if (found := _find(caller, value)) is not None}
    held = {key: found for key, found in held.items() if not _AVERAGE.search(str(key))} or held
    if len(held) > 1:
        raise ValueError(f"{caller}: there are several state dicts, {listed(map(repr, held))}: pass the one to load")
    return next(iter(held.values()), None)


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _describe(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    if {"state", "param_groups"} <= content.keys():
        return "the state of an optimizer"
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    others = [f"{key!r}: {type(value).__name__}" for key, value in content.items() if not isinstance(value, Tensor)]
    return f"a dict with {f'{tensors} tensors and ' if tensors else ''}{listed(others)}"

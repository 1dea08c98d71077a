"""Weights of the official ELSA-Swin and of timm's VOLO for the models of this package."""

import re
from collections.abc import Mapping

from timm.layers import resample_abs_pos_embed_nhwc
from timm.utils import unwrap_model
from torch import Tensor, nn

from ..nn import ELSA
from .state_dict import Weights, listed, read_state_dict

_BUFFERS = (".attn.relative_id", ".attn_mask")
_OUTLOOK = ("v", "attn", "proj")


def load_official_checkpoint(model: nn.Module, path_or_state_dict: Weights) -> None:
    """Load an official ELSA-Swin checkpoint into an ELSA-Swin of this package.

    Everything is checked first: on an error the model is as it was.

    Args:
        model: From ``timm.create_model("elsa_swin_…")``, with as many classes as the checkpoint.
        path_or_state_dict: The file, .safetensors or one read with ``weights_only=True``, or its content: a state
            dict, a module, or a dict that holds either, as ``state_dict``, ``model`` or under another name, averaged
            weights only if there are no others. What wrappers such as ``torch.compile`` add to names is removed.

    Raises:
        ValueError: It holds no weights, or they do not fit the model. The message names what is missing, left over or
            of another shape, as the model names it, or the two numbers of classes.
        OSError: The file cannot be read.
        pickle.UnpicklingError: The file holds more than weights and plain data.

    Example:
        >>> model = timm.create_model("elsa_swin_tiny")
        >>> load_official_checkpoint(model, "elsa_swin_tiny.pth.tar")
    """
    model = unwrap_model(model)
    own = model.state_dict()
    state_dict = convert_official(read_state_dict("load_official_checkpoint", path_or_state_dict, own))
    _check_fit("load_official_checkpoint", state_dict, own)
    model.load_state_dict(state_dict)


def load_volo_checkpoint(model: nn.Module, path_or_state_dict: Weights) -> list[str]:
    """Load a VOLO checkpoint of timm, or of VOLO's authors, into all of an ELSA-VOLO but its ELSA layers.

    Position embeddings of another size are resampled. Everything is checked first: on an error the model is as it was.

    Args:
        model: From ``timm.create_model("elsa_volo_…")`` or `convert`, with as many classes as the checkpoint.
        path_or_state_dict: The file, .safetensors or one read with ``weights_only=True``, or its content: a state
            dict, a module, or a dict that holds either, as ``state_dict``, ``model`` or under another name, averaged
            weights only if there are no others. What wrappers such as ``torch.compile`` add to names is removed.

    Returns:
        The names of the parameters that stay as they were, those of the ELSA layers, as ``model`` names them without
        the wrappers around it.

    Raises:
        ValueError: It holds no weights, or they do not fit the rest of the model, or hold ELSA layers themselves.
        OSError: The file cannot be read.
        pickle.UnpicklingError: The file holds more than weights and plain data.

    Example:
        >>> volo = timm.create_model("volo_d1_224", pretrained=True)
        >>> model = timm.create_model("elsa_volo_d1")
        >>> untrained = load_volo_checkpoint(model, volo.state_dict())
    """
    model = unwrap_model(model)
    own = model.state_dict()
    layers = [f"{name}." for name, module in model.named_modules() if isinstance(module, ELSA)]
    untrained = [name for name in own if name.startswith(tuple(layers))]
    outlook = {f"{layer}{part}.{kind}" for layer in layers for part in _OUTLOOK for kind in ("weight", "bias")}
    given = read_state_dict("load_volo_checkpoint", path_or_state_dict, own)
    state_dict = {name: tensor for name, tensor in given.items() if name not in outlook}
    if "pos_embed" in own and "pos_embed" in state_dict and state_dict["pos_embed"].ndim == 4:
        state_dict["pos_embed"] = resample_abs_pos_embed_nhwc(state_dict["pos_embed"], own["pos_embed"].shape[1:3])
    _check_fit("load_volo_checkpoint", state_dict, {name: own[name] for name in own if name not in untrained})
    model.load_state_dict({**own, **state_dict})
    return untrained


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


def _check_fit(function: str, state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    given = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    unfit = {name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)}
    if not unfit:
        return
    theirs, ours = (_classes(shapes) for shapes in (given, expected))
    if theirs != ours and all(name.startswith(("head.", "aux_head.")) for name in unfit):
        raise ValueError(
            f"{function}: the checkpoint has {theirs} classes, the model {ours}: create the model with "
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
        f"{function}: the checkpoint does not fit the model; "
        + "; ".join(f"{problem}: {listed(names)}" for problem, names in problems.items() if names)
    )


def _classes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return next((shapes[name][0] for name in ("head.fc.weight", "head.weight") if name in shapes), 0)

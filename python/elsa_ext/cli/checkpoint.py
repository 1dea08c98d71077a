"""The checkpoint file: written whole or not at all, read without running code from it, and only if it is unchanged."""

import hashlib
import os
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.state_dict import unwrap_names
from .errors import CommandError
from .files import write_whole
from .model import build_model


@dataclass
class Checkpoint:
    """What ``checkpoint.pt`` holds, as a plain dict of these fields and ``sha256``, the ``checksum`` of all others."""

    model: str
    model_kwargs: dict[str, Any]
    classes: list[str]
    input: dict[str, Any]
    """What timm's ``create_transform`` takes: ``input_size``, ``mean``, ``std``, ``interpolation``, ``crop_pct``, …"""
    epoch: int
    metrics: dict[str, float]
    state_dict: dict[str, Tensor]
    training: dict[str, Any] | None = None
    """What ``elsa-ext train --resume`` goes on from, see ``Training.state``."""

    def save(self, path: Path) -> None:
        """Write the checkpoint to ``path``; if that fails, what was there before stays."""
        content = {name: value for name, value in vars(self).items() if value is not None}
        content["sha256"] = checksum(content)
        write_whole(path, lambda file: torch.save(content, file))


KINDS: dict[str, Any] = {
    **dict.fromkeys(("model_kwargs", "input", "metrics", "state_dict"), dict),
    **{"model": str, "classes": list, "epoch": int, "training": dict | None},
}
"""What each of the fields must be, as `isinstance` takes it."""


def checksum(content: Any) -> str:
    """Return the SHA-256 of names, dtypes, shapes, bytes and values in nested dicts, lists, tensors and others."""
    digest = hashlib.sha256()
    for part in parts(content):
        digest.update(part)
    return digest.hexdigest()


def parts(content: Any) -> Iterator[Any]:
    """Yield what identifies ``content``, piece by piece, as bytes and as arrays of them."""
    if isinstance(content, Tensor):
        yield f"{content.dtype}{tuple(content.shape)}".encode()
        yield content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    elif isinstance(content, dict):
        yield f"dict{len(content)}".encode()
        for item in content.items():
            yield from parts(item)
    elif isinstance(content, list | tuple):
        yield f"list{len(content)}".encode()
        for item in content:
            yield from parts(item)
    else:
        text = repr(content).encode()
        yield f"{type(content).__name__}{len(text)}".encode()
        yield text


def load(path: str) -> Checkpoint:
    """Read a checkpoint of ``elsa-ext train``.

    Raises:
        CommandError: The file is missing, damaged, or something else.
    """
    if not os.path.exists(path):
        raise CommandError(f"no such file: {path}")
    if os.path.isdir(path):
        raise CommandError(f"{path} is a folder, not a checkpoint file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a TorchScript file, and then rejects it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # depending on where the damage is, anything from EOFError to UnpicklingError
        raise CommandError(f"{path} is not a checkpoint, or is damaged") from error
    names = [field.name for field in fields(Checkpoint) if field.default is MISSING]
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise CommandError(f"{path} was not written by elsa-ext train: it has no {', '.join(missing)}")
    odd = [name for name, kind in KINDS.items() if not isinstance(content.get(name), kind)]
    if odd:
        raise CommandError(f"{path} was not written by elsa-ext train: {', '.join(odd)} in it are of another kind")
    expected = content.pop("sha256", None)
    # Checkpoints of before there was one hold nothing but the fields.
    if not content.keys() <= {*names, "training"} if expected is None else checksum(content) != expected:
        raise CommandError(f"{path} is damaged: what it holds is not what its checksum was made of")
    return Checkpoint(**{name: content[name] for name in names}, training=content.get("training"))


def load_model(path: str) -> tuple[Checkpoint, nn.Module]:
    """Read a checkpoint and build its model, ready to classify.

    Raises:
        CommandError: As ``load``, or the weights are those of another model than the checkpoint names, or of another
            number of classes.
    """
    checkpoint = load(path)
    try:
        model = build_model(checkpoint.model, checkpoint.model_kwargs, checkpoint.input["input_size"])
        model.load_state_dict(unwrap_names(checkpoint.state_dict, model.state_dict()))
    except CommandError as error:
        raise CommandError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        first = textwrap.shorten(str(error).splitlines()[-1], 300, placeholder=" …")
        raise CommandError(f"the weights in {path} are not those of {checkpoint.model}: {first}") from error
    outputs = getattr(model, "num_classes", len(checkpoint.classes))
    if outputs != len(checkpoint.classes):
        raise CommandError(f"{path} names {len(checkpoint.classes)} classes, and its model has {outputs}")
    return checkpoint, model.eval()

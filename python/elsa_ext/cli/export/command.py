"""``elsa-ext export``: a checkpoint's model for programs that have no elsa-ext, checked against eager mode."""

import argparse
import contextlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timm.layers import set_scriptable
from torch import Tensor, nn

import elsa_ext

from ..checkpoint import Checkpoint, load_model
from ..errors import CommandError, CommandFailed
from ..files import check_apart, check_writable, write_whole
from ..text import printable
from .arguments import AOT, FORMATS, ONNX, TORCHSCRIPT, export_format

Model = Callable[[Tensor], Tensor]

BATCHES = (2, 2, 2, 1, 5)
"""Images at once in the comparison. TorchScript watches the first calls, and optimises a later one."""
TOLERANCE = 1e-4
"""Of the largest logit, or of 1 if that is larger."""
NEEDS_LIBRARY = (TORCHSCRIPT, AOT)


def run(args: argparse.Namespace) -> int:
    """Write the model and print what was written."""
    form = export_format(args)
    if form is None:
        raise CommandError(f"{args.output} ends in none of {', '.join(FORMATS)}: give --format")
    output = Path(args.output)
    with set_scriptable(form == TORCHSCRIPT):
        checkpoint, model = load_model(args.checkpoint)
    check_apart(output, args.checkpoint)
    check_writable(output)
    with tempfile.TemporaryDirectory(prefix="elsa-ext-") as folder, quiet():
        path = Path(folder, f"model{suffix(form)}")
        with explained(f"{checkpoint.model} cannot be written as {form}"):
            WRITERS[form](model, checkpoint, path)
        with explained(f"what was written as {form} cannot be run"):
            difference, largest = compare(LOADERS[form](path), model, checkpoint.input["input_size"])
        if not difference <= TOLERANCE * max(1.0, largest):
            raise CommandFailed(
                f"the {form} model differs from the checkpoint's by {difference:.2g} of logits up to {largest:.2g}; "
                "nothing was written"
            )
        write_whole(output, lambda file: copy(path, file))
        size = path.stat().st_size / 1e6
    _, height, width = checkpoint.input["input_size"]
    print(f"written {printable(args.output)}: {checkpoint.model} as {form}, {size:.1f} MB")
    print(f"checked largest difference {difference:.2g} of logits up to {largest:.2g}, on random images")
    print(f"input   any number of RGB images of {height} x {width} pixels, (value - mean) / deviation of 0 to 1")
    print(f"        mean {numbers(checkpoint.input['mean'])}, deviation {numbers(checkpoint.input['std'])}")
    if form in NEEDS_LIBRARY:
        print(f"needs   {printable(elsa_ext.build_info()['library'])}")
    return 0


def suffix(form: str) -> str:
    """Return how files of a format end."""
    return next(end for end, name in FORMATS.items() if name == form)


def numbers(values: tuple[float, ...]) -> str:
    """Return the numbers of the channels as text."""
    return ", ".join(f"{value:g}" for value in values)


def copy(path: Path, file: Any) -> None:
    """Write what is in ``path`` into an open file."""
    with path.open("rb") as source:
        shutil.copyfileobj(source, file)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch warns of while it exports: nothing that the user could change."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever torch stumbles over into a ``CommandFailed``."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CommandFailed(f"{what}: {reason}") from error


def facts(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a program must know of the model, each as JSON."""
    known = {"model": checkpoint.model, "classes": checkpoint.classes, **checkpoint.input}
    return {name: json.dumps(value) for name, value in known.items()}


def exported(model: nn.Module, checkpoint: Checkpoint) -> tuple[tuple[Tensor], Any]:
    """Return the example from which torch exports a model, and that its first dimension is free."""
    return (torch.randn(2, *checkpoint.input["input_size"]),), ({0: torch.export.Dim("batch")},)


def write_torchscript(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Write TorchScript, with the facts as extra files."""
    torch.jit.save(torch.jit.freeze(torch.jit.script(model)), path, _extra_files=facts(checkpoint))


def write_aot(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Write a package of AOTInductor, with the facts as metadata."""
    example, shapes = exported(model, checkpoint)
    program = torch.export.export(model, example, dynamic_shapes=shapes)
    options = {"aot_inductor.metadata": facts(checkpoint)}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def write_onnx(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Write ONNX, with the facts as properties of the model."""
    example, shapes = exported(model, checkpoint)
    with elsa_ext.use_backend("torch"):
        program = torch.onnx.export(
            model, example, dynamic_shapes=shapes, input_names=["images"], output_names=["logits"], verbose=False
        )
    assert program is not None
    program.model.metadata_props.update(facts(checkpoint))
    program.save(path, external_data=False)


def load_torchscript(path: Path) -> Model:
    """Return what TorchScript computes."""
    model: Model = torch.jit.load(path)
    return model


def load_aot(path: Path) -> Model:
    """Return what a package of AOTInductor computes."""
    model: Model = torch._inductor.aoti_load_package(str(path))
    return model


def load_onnx(path: Path) -> Model:
    """Return what an ONNX model computes: in ONNX Runtime if it is installed, otherwise in onnx's own evaluator."""
    try:
        from onnxruntime import InferenceSession

        session = InferenceSession(path)
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


WRITERS = {TORCHSCRIPT: write_torchscript, AOT: write_aot, ONNX: write_onnx}
LOADERS = {TORCHSCRIPT: load_torchscript, AOT: load_aot, ONNX: load_onnx}


def compare(written: Model, model: nn.Module, input_size: tuple[int, int, int]) -> tuple[float, float]:
    """Return the largest difference of two models' logits for random images, and the largest logit."""
    generator = torch.Generator().manual_seed(0)
    difference = largest = 0.0
    with torch.no_grad():
        for batch in BATCHES:
            images = torch.randn(batch, *input_size, generator=generator)
            expected = model(images)
            found = written(images)
            if found.shape != expected.shape:
                raise CommandFailed(f"it answers {tuple(found.shape)}, {tuple(expected.shape)} is expected")
            # A NaN in either is a difference.
            difference = max(difference, (found - expected).abs().nan_to_num(nan=torch.inf).max().item())
            largest = max(largest, expected.abs().max().item())
    return difference, largest

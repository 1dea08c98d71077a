"""``elsa-ext attend``: where a local layer of a model looks in an image."""

import argparse
import json
from typing import Any

from timm.data import create_transform
from torch import nn

from ...nn import LocalWeights
from ..checkpoint import load_model
from ..data.images import load_image
from ..errors import CommandError
from ..files import check_apart, check_writable
from ..text import printable
from .layers import describe, find_layers, look
from .picture import draw
from .scene import Scene, scene_of, times


def run(args: argparse.Namespace) -> int:
    """Draw the picture, or list the layers."""
    listing = args.layer == "list"
    if not listing:
        check_apart(args.output, args.checkpoint, args.image)
        check_writable(args.output)
    checkpoint, model = load_model(args.checkpoint)
    layers = find_layers(model)
    if not layers:
        raise CommandError(f"{checkpoint.model} has no local layer")
    chosen = layers if listing else {name: layers[name] for name in [known(args.layer, layers, checkpoint.model)]}
    images = create_transform(**checkpoint.input)(load_image(args.image)).unsqueeze(0)
    found = look(model, images, chosen)
    if listing:
        list_layers(chosen, found, args.json)
        return 0
    [(name, layer)] = chosen.items()
    scene = scene_of(checkpoint, name, layer, found[name], images, args)
    draw(args.output, scene)
    if args.json:
        print(json.dumps(as_json(scene, args.image)))
    else:
        print(f"wrote {printable(str(args.output))}: {summary(scene)}")
    return 0


def known(name: str | None, layers: dict[str, nn.Module], model: str) -> str:
    """Return the name of the layer to look into, of those that there are."""
    if name is None:
        return next(iter(layers))
    if name not in layers:
        raise CommandError(f"{model} has no local layer {name!r}; there are {', '.join(layers)}")
    return name


def list_layers(layers: dict[str, nn.Module], found: dict[str, LocalWeights], as_document: bool) -> None:
    """Print one line for every layer."""
    rows: list[dict[str, Any]] = []
    for name, layer in layers.items():
        seen = found[name]
        height, width = seen.weights.shape[-2:]
        taps = list(seen.kernel_size)
        rows.append({"name": name, "kind": describe(layer), "heads": seen.heads, "taps": taps, "map": [height, width]})
    if as_document:
        print(json.dumps({"layers": rows}))
        return
    width = max(len(name) for name in layers)
    for row in rows:
        heads = f"{row['heads']} head" + ("s" if row["heads"] != 1 else "")
        sizes = f"{times(row['taps'])} taps on a map of {times(row['map'])}"
        print(f"{printable(row['name']):{width}}  {row['kind']}: {heads}, {sizes}")


def summary(scene: Scene) -> str:
    """Say what the picture shows, and of what."""
    found = scene.found
    pixels = len(scene.sights)
    parts = [scene.layer, part_of(pixels, pixels, "pixel"), part_of(len(scene.heads), found.heads, "head")]
    if scene.channels:
        parts.append(part_of(len(scene.channels), found.channels, "channel"))
    return ", ".join(parts)


def part_of(shown: int, there: int, what: str) -> str:
    """Say how many of what there is are shown."""
    return f"{shown} of {there} {what}s" if shown < there else f"{there} {what}" + ("s" if there != 1 else "")


def as_json(scene: Scene, image: str) -> dict[str, Any]:
    """Return all numbers of a picture."""
    found = scene.found
    return {
        "model": scene.model,
        "layer": scene.layer,
        "kind": scene.kind,
        "image": image,
        "picture": list(scene.picture.shape[:2]),
        "map": [found.rows.length, found.columns.length],
        "heads": scene.heads,
        "channels": scene.channels,
        "pixels": [
            {
                "pixel": seen.pixel,
                "cell": seen.cell,
                "rows": seen.rows,
                "columns": seen.columns,
                "counts": seen.counts.tolist(),
                "weights": seen.weights.tolist(),
                **({"filters": seen.after.tolist()} if scene.channels else {}),
            }
            for seen in scene.sights
        ],
    }

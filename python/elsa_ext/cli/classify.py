"""``elsa-ext classify``: the most probable classes of image files."""

import argparse
import sys

import torch
from timm.data import create_transform

from .checkpoint import load_model
from .errors import CommandError
from .images import load_image
from .text import printable


def run(args: argparse.Namespace) -> int:
    """Print the top classes of every image that can be read; return 2 if one cannot."""
    checkpoint, model = load_model(args.checkpoint)
    to_input = create_transform(**checkpoint.input)
    code = 0
    for path in args.images:
        try:
            image = load_image(path)
        except CommandError as error:
            print(f"elsa-ext classify: {printable(str(error))}", file=sys.stderr)
            code = 2
            continue
        with torch.inference_mode():
            probabilities = model(to_input(image).unsqueeze(0))[0].softmax(0)
        top = probabilities.topk(min(args.top, len(checkpoint.classes)))
        print(printable(path))
        for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            print(f"  {probability:8.3%}  {printable(checkpoint.classes[index])}")
    return code

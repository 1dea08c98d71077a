"""Answers of a model to batches of images."""

import torch
from torch import Tensor, nn

from .errors import CommandFailed


def answer(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of images, or raise a ``CommandFailed`` if the memory is too small for so many at once."""
    try:
        logits: Tensor = model(images)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise CommandFailed(f"not enough memory for {len(images)} images at once; try a lower --batch-size") from error
    return logits

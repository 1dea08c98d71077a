"""Answers of a model to batches of images."""

import torch
from torch import Tensor, nn

from .errors import CommandFailed


def answer(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of images.

    Raises:
        CommandFailed: The memory is too small for so many at once, or the model has diverged, or overflows.
    """
    try:
        logits: Tensor = model(images)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise CommandFailed(f"not enough memory for {len(images)} images at once; try a lower --batch-size") from error
    if not logits.isfinite().all():
        raise CommandFailed("the model's answers are not finite numbers")
    return logits

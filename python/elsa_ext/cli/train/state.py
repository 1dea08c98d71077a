"""What a training is made of beside its weights, as plain data: generators, optimizer, and how to go on from there."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .processes import Processes, parted, whole


def generators(device: torch.device) -> dict[str, Any]:
    """Return the state of all generators of random numbers of this process."""
    version, numbers, normal = random.getstate()
    kind, words, place, has_normal, other_normal = np.random.get_state()
    return {
        "python": [version, list(numbers), normal],
        "numpy": [str(kind), torch.from_numpy(np.asarray(words, dtype=np.int64)), place, has_normal, other_normal],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_generators(state: dict[str, Any], device: torch.device) -> None:
    """Let the generators of random numbers go on from what ``generators`` has returned."""
    version, numbers, normal = state["python"]
    random.setstate((version, tuple(numbers), normal))
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def gather_generators(processes: Processes, device: torch.device) -> list[dict[str, Any]]:
    """Return the state of the generators of every process."""
    return processes.gather(generators(device))


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict, whole; for all processes at once."""
    state: dict[str, Tensor] = whole(model.state_dict())
    return state


def set_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a model, parted or not, the weights of a whole state dict."""
    own = model.state_dict()
    model.load_state_dict({name: parted(tensor, own[name]) for name, tensor in state.items()})


def set_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer, of parted parameters or not, the whole state of one of the same model."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.load_state_dict(
        {
            **state,
            "state": {
                index: {
                    name: parted(value, parameters[index]) if isinstance(value, Tensor) else value
                    for name, value in values.items()
                }
                for index, values in state["state"].items()
            },
        }
    )

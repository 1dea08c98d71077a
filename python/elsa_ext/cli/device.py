"""The device that a command works on."""

import torch

from .errors import CommandError


def find_device(name: str | None) -> torch.device:
    """Return the device called ``name`` once it has proved to work; without a name, the best there is."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device

"""What to type where a package is missing."""

from importlib.metadata import version

PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}


def install_command(*modules: str) -> str:
    """Return the ``pip`` command that installs the packages of ``modules`` and keeps the torch that is there.

    torch is named at its version since timm and torchvision depend on it: pip then takes a torchvision that was made
    for this torch, and does not replace a torch for the CPU by the newest one with all of CUDA.
    """
    return " ".join(["pip install", f"torch=={version('torch')}", *(PACKAGES.get(name, name) for name in modules)])

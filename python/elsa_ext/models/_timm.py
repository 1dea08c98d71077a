"""Import of timm that also works beside a torchvision whose compiled ops do not load."""

import importlib
import re
import sys
from types import ModuleType

import torch

from elsa_ext._install import install_command

# What defined each op; a library that is collected takes its definition back.
_libraries: dict[str, torch.library.Library] = {}


def import_timm() -> ModuleType:
    """Import timm; where torchvision was built for another torch, define the op names that its import asks for.

    Such a torchvision fails to import, and timm with it, although timm's models call none of its compiled ops. A
    defined op has no kernel: calling one is still an error.

    Raises:
        ImportError: timm is not installed.
    """
    while True:
        try:
            return importlib.import_module("timm")
        except ModuleNotFoundError as error:
            if error.name != "timm":
                raise
            raise ImportError(f"elsa_ext.models needs timm: {install_command('timm')}") from None
        except RuntimeError as error:
            missing = re.fullmatch(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None or missing[1] in _libraries:
                raise
            _define_op(missing[1])
            _forget("timm", "torchvision")


def _define_op(name: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries[name] = library


def _forget(*packages: str) -> None:
    """Remove what a failed import left behind, so that the next one starts afresh."""
    for module in list(sys.modules):
        if module.split(".")[0] in packages:
            del sys.modules[module]


import_timm()

"""``elsa-ext info``: what a bug report needs, with the core install alone."""

import argparse
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import elsa_ext

from ..errors import CommandError

PACKAGES = ("numpy", "timm", "torchvision", "scikit-learn", "matplotlib", "pillow", "tqdm")


def run(args: argparse.Namespace) -> int:
    """Print one ``key: value`` line per fact, or a JSON object of them."""
    try:
        build = elsa_ext.build_info()
    except RuntimeError as error:
        raise CommandError(str(error)) from error
    facts = {
        "elsa-ext": build.pop("version"),
        **build,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "os": platform.platform(),
        "cpu": cpu_model(),
        "torch": torch.__version__,
        "torch cuda": torch.version.cuda or "none",
        "torch threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{name: installed(name) for name in PACKAGES},
    }
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    width = max(len(key) for key in facts) + 1
    for key, value in facts.items():
        print(f"{key + ':':{width}} {value}")
    return 0


def cpu_model() -> str:
    """Return the name that the processor gives itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(package: str) -> str:
    """Return the version of a package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

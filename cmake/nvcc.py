"""Finds NVIDIA's compiler, or fetches it from PyPI.

`python cmake/nvcc.py 13.0 FOLDER` prints where that of CUDA 13.0 is; if there is none, pip installs it into FOLDER.
`python cmake/nvcc.py` prints the version of the one that is here, or else of the one that would be fetched.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

# Not cuda-toolkit[nvcc]: where torch has brought cuda-toolkit without this extra, pip would believe that it has it.
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
# The oldest of which PyPI has an nvcc, so that most drivers run its kernels.
VERSION = "13.0"


def requirements(version: str) -> list[str]:
    """Return what pip installs to have the nvcc of a CUDA version, with its headers and its runtime library."""
    return [f"{package}=={version}.*" for package in PACKAGES]


def nvcc_of_the_machine() -> str | None:
    """Return the nvcc that CMake takes by itself."""
    path, toolkit = os.environ.get("PATH", os.defpath), os.environ.get("CUDA_PATH")
    if toolkit:
        path += f"{os.pathsep}{toolkit}/bin"
    return os.environ.get("CUDACXX") or shutil.which("nvcc", path=path)


def nvcc_in(*folders: str) -> str | None:
    """Return the nvcc that pip has installed into one of these folders."""
    found = (path for folder in folders for path in Path(folder).glob("nvidia/cu*/bin/nvcc"))
    return next((str(path) for path in found), None)


def version_of(nvcc: str) -> str | None:
    """Return the CUDA version of an nvcc, nothing if it does not run."""
    try:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return None
    found = re.search(r"release (\d+\.\d+)", said)
    return found and found[1]


def fetch(version: str, folder: str) -> str:
    """Return the nvcc of a CUDA version, which pip installs into ``folder`` from PyPI."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-warn-conflicts"]
    if nvcc_in(folder) is None:
        subprocess.run([*pip, "--target", folder, *requirements(version)])
    nvcc = nvcc_in(folder)
    if nvcc is None:
        sys.exit(
            f"nvcc of CUDA {version}: pip could not fetch it, and PyPI has none before CUDA {VERSION}; install "
            "NVIDIA's toolkit of that version, and name its nvcc by CUDACXX"
        )
    return nvcc


def main() -> None:
    """Print what the command line asks for."""
    here = nvcc_of_the_machine()
    if len(sys.argv) == 1:
        print((here and version_of(here)) or VERSION)
        return
    version, folder = sys.argv[1:]
    places = [here, f"/usr/local/cuda-{version}/bin/nvcc"]
    print(next((nvcc for nvcc in places if nvcc and version_of(nvcc) == version), None) or fetch(version, folder))


if __name__ == "__main__":
    main()

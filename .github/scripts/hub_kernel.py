"""Write the ops as a project that kernel-builder builds for the Hugging Face Hub: ``hub_kernel.py build/hub``.

https://huggingface.co/docs/kernels describes the layout. ``kernels.get_kernel`` loads what is built of it: an extension
for LibTorch's stable ABI whose ops have a namespace of its own, and the Python around them. kernel-builder compiles
every file once, and knows only files that build.toml lists: what CMake compiles once per instruction set or kernel size
is included here, by a file for each of these. They and the list are made of what cmake/ops.cmake says and of what is
there.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ("ops", "backend.py", "_after_import.py", "_torch_private.py")
# Included, and not compiled alone.
INCLUDED = {"kernels.cpp": "kernels.inl", "sized.cu": "sized.inl"}
CPU_SOURCES = ("src/cpu/capability.cpp", "src/cpu/local/plan.cpp", "src/core/launch_plan.cpp")
FLAGS = ("-DELSA_LIBRARY=TORCH_EXTENSION_NAME", "-fvisibility=hidden", "-ffp-contract=fast")
FLAKE = """{
  inputs.kernel-builder.url = "github:huggingface/kernels";
  outputs = { self, kernel-builder, ... }:
    kernel-builder.lib.genKernelFlakeOutputs { inherit self; path = ./.; };
}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FOLDER", help="what it has of an earlier run is replaced")
    output: Path = parser.parse_args(argv).output
    for name in ("src", "torch-ext"):
        shutil.rmtree(output / name, ignore_errors=True)
    copy_sources(output)
    shutil.copytree(ROOT / "torch-ext", output / "torch-ext")
    for name in PYTHON:
        copy(ROOT / "python" / "elsa_ext" / name, output / "torch-ext" / "elsa" / name)
    rules = (ROOT / "cmake" / "ops.cmake").read_text("utf-8")
    write_cpu_kernels(output, rules)
    write_cuda_kernels(output, rules)
    (output / "build.toml").write_text(build_toml(output), "utf-8")
    (output / "flake.nix").write_text(FLAKE, "utf-8")
    shutil.copy(ROOT / "LICENSE", output)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder of Python files."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def copy_sources(output: Path) -> None:
    """Copy what the ops are compiled of: not the bindings of ``_C``, the oracle and what a library says of itself."""
    for source in sorted((ROOT / "src").rglob("*.*")):
        path = source.relative_to(ROOT)
        if path.parts[1] != "bindings" and path.name not in ("reference.cpp", "build_info.cpp"):
            target = output / path.with_name(INCLUDED.get(path.name, path.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def write_cpu_kernels(output: Path, rules: str) -> None:
    """Write a file for every instruction set, which is empty for other processors."""
    includes = include(output, "kernels.inl", "cpu")
    (output / "torch-ext" / "cpu").mkdir()
    for capability, vector_bytes, options in re.findall(r"add_cpu_kernels\((\w+) (\d+)(.*)\)", rules):
        processor = {"baseline": "!defined(__aarch64__)", "neon": "defined(__aarch64__)"}.get(capability)
        target = ",".join(re.findall(r"-m(\w+)", options))
        lines = [
            f"#if {processor or 'defined(__x86_64__)'}",
            *([f'#pragma GCC target("{target}")'] if target else []),
            f"#define ELSA_CAPABILITY {capability}",
            f"#define ELSA_VECTOR_BYTES {vector_bytes}",
            *includes,
            "#endif",
        ]
        (output / "torch-ext" / "cpu" / f"{capability}.cpp").write_text("\n".join(lines) + "\n", "utf-8")


def write_cuda_kernels(output: Path, rules: str) -> None:
    """Write a file for every kernel size that has kernels of its own."""
    (listed,) = re.findall(r"set\(ELSA_KERNEL_SIZES ([\d ]+) CACHE", rules)
    folder = output / "torch-ext" / "cuda"
    folder.mkdir()
    (folder / "kernel_sizes.h").write_text(f"#define ELSA_KERNEL_SIZES {', '.join(listed.split())}\n", "utf-8")
    for size in listed.split():
        lines = [f"#define ELSA_KERNEL_SIZE {size}", *include(output, "sized.inl", "cuda")]
        (folder / f"k{size}.cu").write_text("\n".join(lines) + "\n", "utf-8")


def include(output: Path, name: str, device: str) -> list[str]:
    """Return the lines that include the file of this name of every op."""
    paths = sorted(output.glob(f"src/ops/*/{device}/{name}"))
    return [f'#include "../../{path.relative_to(output).as_posix()}"' for path in paths]


def build_toml(output: Path) -> str:
    """Return build.toml, of edition 5."""
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    (major,) = re.findall(r'^version = "(\d+)\.', pyproject, re.MULTILINE)
    (torch,) = re.findall(r'dependencies = \["torch>=([\d.]+)"', pyproject)
    headers = find(output, "src/**/*.h", "src/**/*.cuh", "src/**/*.inl", "torch-ext/**/*.h")
    cpu = [*CPU_SOURCES, *find(output, "src/ops/*/op.cpp", "src/ops/*/cpu/*.cpp", "torch-ext/cpu/*.cpp")]
    cuda = find(output, "src/ops/*/op.cpp", "src/ops/*/cuda/*.c*", "torch-ext/cuda/*.cu")
    cuda = [name for name in cuda if not name.endswith(".cuh")]
    tables = {
        "general": {
            "name": "elsa",
            "version": int(major),
            "edition": 5,
            "license": "Apache-2.0",
            "backends": ["cpu", "cuda"],
        },
        "torch": {
            "src": ["torch-ext/torch_binding.cpp", *find(output, "src/torch/*.cpp"), *headers],
            "cxx-flags": FLAGS,
        },
        "torch.stable-abi": {"cpu": torch, "cuda": torch},
        "kernel.elsa_cpu": {
            "backend": "cpu",
            "depends": ["torch"],
            "include": ["src/torch/cpu"],
            "cxx-flags": [*FLAGS, "-DELSA_KEY=CPU"],
            "src": cpu,
        },
        "kernel.elsa_cuda": {
            "backend": "cuda",
            "depends": ["torch"],
            "include": ["src/torch/cuda", "src/cuda/platform", "torch-ext/cuda"],
            "cxx-flags": [*FLAGS, "-DELSA_KEY=CUDA"],
            "cuda-flags": ["-std=c++20"],
            "cuda-capabilities": ["8.0", "8.6", "8.9", "9.0+PTX", "10.0", "12.0+PTX"],
            "src": cuda,
        },
    }
    return "\n".join(
        "\n".join([f"[{table}]", *(f"{key} = {json.dumps(value, indent=2)}" for key, value in pairs.items()), ""])
        for table, pairs in tables.items()
    )


def find(output: Path, *patterns: str) -> list[str]:
    """Return the files that match, in the order of the patterns."""
    found: Iterable[Path] = (path for pattern in patterns for path in sorted(output.glob(pattern)))
    return [path.relative_to(output).as_posix() for path in found]


if __name__ == "__main__":
    main()

"""The project for kernel-builder: what it lists is whole, and its ops are ours, in a namespace of their own."""

import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import elsa_ext
import pytest
import torch

tomllib = pytest.importorskip("tomllib")
SCRIPT = Path(__file__).parents[1] / ".github" / "scripts" / "hub_kernel.py"
NAMESPACE = "_elsa_cpu_0123abc"

# What kernel-builder writes beside the project's files.
OPS = f"""
import torch
from . import {NAMESPACE}
ops = torch.ops.{NAMESPACE}
def add_op_namespace_prefix(op_name):
    return f"{NAMESPACE}::{{op_name}}"
"""
REGISTRATION = """
#include <Python.h>
#define NAMED(name) PyInit_##name
#define NAME_OF(name) #name
#define REGISTER_EXTENSION(name) DEFINE_MODULE(name)
#define DEFINE_MODULE(name)                                                        \\
  PyMODINIT_FUNC NAMED(name)() {                                                   \\
    static PyModuleDef module = {PyModuleDef_HEAD_INIT, NAME_OF(name), nullptr, 0, \\
                                 nullptr, nullptr, nullptr, nullptr, nullptr};     \\
    return PyModule_Create(&module);                                               \\
  }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub kernel")
    runpy.run_path(str(SCRIPT))["main"]([str(folder)])
    return folder


def build_toml(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "build.toml").read_text("utf-8"))


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_what_is_included_is_listed(project: Path, backend: str) -> None:
    config = build_toml(project)
    kernel = config["kernel"][f"elsa_{backend}"]
    listed = {project / name for name in (*config["torch"]["src"], *kernel["src"])}
    places = [project / name for name in kernel["include"]]
    for path in listed:
        for mark, name in re.findall(r'^#include (["<])([\w./]+)[">]', path.read_text("utf-8"), re.MULTILINE):
            found = [(folder / name).resolve() for folder in ([path.parent] if mark == '"' else places)]
            ours = [file for file in found if file.exists()]
            assert all(file in {file.resolve() for file in listed} for file in ours), (path, name)
            assert ours or mark == "<" or name == "registration.h", (path, name)


def test_every_op_is_there(project: Path) -> None:
    ops = {path.name for path in (project / "src" / "ops").iterdir()}
    assert ops == set(elsa_ext.ops.registration.OPS)
    for kernel in build_toml(project)["kernel"].values():
        assert {name.split("/")[2] for name in kernel["src"] if name.endswith("/op.cpp")} == ops


@pytest.fixture(scope="module")
def kernel(project: Path) -> ModuleType:
    """What ``kernels.get_kernel`` returns: compiled without optimisation, as build.toml says otherwise."""
    config = build_toml(project)
    (project / "torch-ext" / "registration.h").write_text(REGISTRATION)
    root = Path(torch.__file__).parent
    common = ["-O0", "-fPIC", "-std=c++20", "-Werror", "-Wall", f"-I{sysconfig.get_path('include')}", "-DCPU_KERNEL"]
    common += ["-isystem", str(root / "include"), "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    common += [f"-DTORCH_EXTENSION_NAME={NAMESPACE}", "-DPy_LIMITED_API=0x03090000"]
    compiler = shlex.split(os.environ.get("CXX", "c++"))

    def compile_file(table: dict[str, Any], name: str) -> str:
        target = project / name.replace("/", "-").replace(".cpp", ".o")
        flags = [*table.get("cxx-flags", []), *(f"-I{project / folder}" for folder in table.get("include", []))]
        run([*compiler, *common, *flags, "-c", str(project / name), "-o", str(target)])
        return str(target)

    tables = (config["torch"], config["kernel"]["elsa_cpu"])
    files = [(table, name) for table in tables for name in table["src"] if name.endswith(".cpp")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda file: compile_file(*file), files))
    package = project / "torch-ext" / "elsa"
    libraries = [f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10", "-Wl,--no-undefined", f"-Wl,-rpath,{root / 'lib'}"]
    python = ["-Wl,--unresolved-symbols=ignore-in-object-files"] if sys.platform == "linux" else []
    run([*compiler, "-shared", *objects, *libraries, *python, "-o", str(package / f"{NAMESPACE}.abi3.so")])
    (package / "_ops.py").write_text(OPS)
    spec = importlib.util.spec_from_file_location(NAMESPACE, package / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[NAMESPACE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.slow
def test_its_ops_are_ours_under_another_name(kernel: ModuleType) -> None:
    assert {*elsa_ext.ops.registration.OPS, "use_backend"} <= set(kernel.__all__)
    value, attn = torch.randn(2, 4, 9, 8), torch.randn(2, 18, 9, 8)
    results = []
    for module in (elsa_ext, kernel):
        leaf = value.clone().requires_grad_()
        out = module.ghost_head(leaf, attn, kernel_size=3)
        query_out = module.neighborhood_attention(value, value, value, heads=2, kernel_size=3, border="shift")
        out.square().sum().backward()
        results.append((out, query_out, leaf.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours)
    nodes = (results[0][0].grad_fn, results[1][0].grad_fn)
    assert type(nodes[0]) is not type(nodes[1])


# opcheck reads .grad of the copies that it makes of its arguments.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
def test_its_ops_are_registered_whole(kernel: ModuleType) -> None:
    tensors = (torch.randn(1, 4, 5, 5, requires_grad=True), torch.randn(1, 9, 5, 5, requires_grad=True))
    op = getattr(torch.ops, NAMESPACE).ghost_head.default
    torch.library.opcheck(op, (*tensors, None, None), {"kernel_size": [3, 3]})
    with pytest.raises(RuntimeError, match=r"elsa::ghost_head: attn has 9 channels"):
        kernel.ghost_head(*tensors, kernel_size=5)

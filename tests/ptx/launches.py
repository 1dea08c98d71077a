"""Calls of the ops by their real host code, every launch of which runs what nvcc makes of the kernel.

The host code is that of the emulated kernels, which hands a launch to a function in Python where there is one. Global
memory is that of the tensors, at their addresses.
"""

import ctypes
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_int64, c_size_t, c_void_p
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ops.backends import emulated_kernels
from ptx.counts import Counts
from ptx.machine import Launch, Step, run
from ptx.memory import Array, GlobalMemory, Region
from ptx.operations import program_of
from ptx.program import ENTRY, Kernel, kernel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
# What gives memory that nobody has written yet.
EMPTY = ("aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty")


class Ptx:
    """The kernels by the names that C++ gives them; ``folder`` keeps what nvcc made of the sources that were needed."""

    def __init__(self, folder: Path, change: Callable[[Kernel], Kernel] = lambda kernel: kernel) -> None:
        self.folder = folder
        self._change = change
        self._entries: dict[str, re.Match[str]] = {}
        self._programs: dict[str, tuple[Kernel, list[Step]]] = {}

    def with_change(self, change: Callable[[Kernel], Kernel]) -> "Ptx":
        """Return the same kernels with a change to every one."""
        changed = Ptx(self.folder, change)
        changed._entries = self._entries
        return changed

    def names(self, source: str, size: int) -> list[str]:
        """Return the kernels of a source file, as it is compiled for a kernel size."""
        return list(entries(self._text(source, size)))

    def program(self, name: str) -> tuple[Kernel, list[Step]]:
        """Return a kernel, and what its instructions do."""
        if name not in self._programs:
            if name not in self._entries:
                self._entries.update(entries(self._text(*source_of(name))))
            entry = self._entries[name]
            found = self._change(kernel(entry[1], int(entry[2]), entry[3]))
            self._programs[name] = found, program_of(found)
        return self._programs[name]

    def _text(self, source: str, size: int) -> str:
        to = self.folder / f"{source.replace('/', '_')}_{size}.ptx"
        if not to.exists():
            (self.folder / "kernel_sizes.h").write_text(f"#define ELSA_KERNEL_SIZES {size}\n")
            options = ["-ptx", "-std=c++20", "-arch=sm_90", f"-DELSA_KERNEL_SIZE={size}", "-I", self.folder]
            headers = ROOT / "src" / "cuda" / "platform"
            subprocess.run(["nvcc", *options, "-I", headers, ROOT / "src" / "ops" / source, "-o", to], check=True)
        return to.read_text()


def source_of(name: str) -> tuple[str, int]:
    """Return the source file that has a kernel, and the kernel size that it is compiled for."""
    op = name.split("::")[1].replace("cuda", "neighborhood_attention")  # whose sources have what ops share
    size = re.search(r"Traits<\w+, (\d+),", name)
    return (f"{op}/cuda/sized.cu", int(size[1])) if size else (f"{op}/cuda/kernels.cu", 3)


def normal(name: str) -> str:
    """Return the name of a kernel as nvcc has it, without what follows."""
    name = re.sub(r"[\w:]+::BFloat16\b", "__nv_bfloat16", name)
    name = re.sub(r"[\w:]+::Half\b", "__half", name).removeprefix("void ")
    return re.sub(r"\((?!elsa::\w+::\w+\)\d).*", "", name)


def entries(ptx: str) -> dict[str, re.Match[str]]:
    """Return the texts of kernels by their names in C++."""
    found = list(ENTRY.finditer(ptx))
    mangled = "\n".join(entry[1] for entry in found)
    names = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout
    return dict(zip(map(normal, names.splitlines()), found, strict=True))


class LaunchInC(ctypes.Structure):
    """elsa::cuda::emulation::Launch."""

    _fields_ = [
        ("kernel", c_void_p), ("x", c_int64), ("y", c_int64), ("z", c_int64), ("threads", c_int),
        ("shared_bytes", c_size_t), ("arguments", c_void_p), ("argument_bytes", c_size_t),
    ]  # fmt: skip


class Interpreter:
    """Answers calls of the emulated ops, and runs their launches."""

    def __init__(self, library: str, ptx: Ptx, counted: bool = False) -> None:
        self._path, self._ptx, self._counted = library, ptx, counted
        self._library = ctypes.CDLL(library)
        # ctypes does not keep what C has a pointer to.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(LaunchInC))(self._launch)
        self._memory = GlobalMemory()
        self._raised: Exception | None = None
        self.launched: list[tuple[str, Launch, Counts | None]] = []
        """The kernels that ran."""

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Do all launches of the library."""
        self._library.elsa_emulated_launch_by(self._callback)
        try:
            yield
        finally:
            self._library.elsa_emulated_launch_by(None)

    def answer(self, op: torch._ops.OpOverload) -> Callable[..., Any]:
        """Return what calls an emulated op on memory that the interpreter knows."""

        def call(*given: Any, **options: Any) -> Any:
            self._memory, self._raised = GlobalMemory(), None
            for tensor in tensors_of((given, options)):
                mark(region_of(self._memory, tensor).written, tensor)
            try:
                with Allocations(self._memory):
                    return op.redispatch(CPU, *given, **options)
            except RuntimeError as error:
                raise (self._raised or error) from None

        return call

    def _launch(self, launch: Any) -> bool:
        try:
            self._run(launch[0])
        except Exception as error:  # C++ knows none of Python's
            self._raised = error
        return self._raised is None

    def _run(self, given: LaunchInC) -> None:
        name = self._names[given.kernel]
        parameters = ctypes.string_at(given.arguments, given.argument_bytes)
        launch = Launch((given.x, given.y, given.z), given.threads, given.shared_bytes, parameters)
        counts = Counts() if self._counted else None
        self.launched.append((name, launch, counts))
        run(*self._ptx.program(name), launch, self._memory, counts)

    @cached_property
    def _names(self) -> dict[int, str]:
        """The kernels' names by their addresses."""
        command = ["nm", "--demangle", "--defined-only", self._path]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = [(int(place, 16), name) for place, _, name in (line.split(maxsplit=2) for line in symbols.splitlines())]
        here = ctypes.cast(self._library.elsa_emulated_launch_by, c_void_p).value or 0
        (base,) = (here - place for place, name in found if name == "elsa_emulated_launch_by")
        return {base + place: normal(name) for place, name in found if "_kernel" in name}


class Allocations(TorchDispatchMode):
    """Tells a memory what PyTorch allocates and writes for an op."""

    def __init__(self, memory: GlobalMemory) -> None:
        super().__init__()
        self._memory = memory
        self._kept: list[Tensor] = []  # so that no two of them are at one address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {tensor.untyped_storage().data_ptr() for tensor in tensors_of((args, kwargs))}
        for tensor in tensors_of(result):
            if tensor.untyped_storage().data_ptr() in before:
                continue
            self._kept.append(tensor)
            region = region_of(self._memory, tensor)
            mark(region.writable, tensor)
            if func._schema.name in EMPTY:
                region.data[:] = 0xFF  # NaN: a result shows what no kernel wrote
            else:
                mark(region.written, tensor)
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | (kwargs or {})
        for argument in func._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors_of(given[argument.name]):
                    mark(region_of(self._memory, tensor).written, tensor)
        return result


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors that have numbers, wherever they are in lists and dictionaries."""
    leaves = torch.utils._pytree.tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.numel()]


def region_of(memory: GlobalMemory, tensor: Tensor) -> Region:
    """Return the region of a tensor's storage."""
    storage, size = tensor.untyped_storage(), tensor.element_size()
    return memory.region(storage.data_ptr(), storage.nbytes() // size, size)


def mark(known: Array, tensor: Tensor) -> None:
    """Note of a storage's numbers that those of a tensor are written or writable."""
    np.lib.stride_tricks.as_strided(known[tensor.storage_offset() :], tensor.shape, tensor.stride())[...] = True


@contextmanager
def interpreted(ptx: Ptx, counted: bool = False) -> Iterator[Interpreter]:
    """Let the interpreter answer what the CPU kernels answer otherwise."""
    interpreter = Interpreter(os.environ["ELSA_EMULATED_LIBRARY"], ptx, counted)
    with emulated_kernels(interpreter.answer), interpreter.launching():
        yield interpreter

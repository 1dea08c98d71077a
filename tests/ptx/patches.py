"""The arguments of the kernels on patches, as src/cuda/patches.cuh and the op's patch_*.cuh lay them out."""

import ctypes
from ctypes import c_bool, c_float, c_int, c_int64, c_uint64
from dataclasses import dataclass
from typing import Any

import numpy as np
from ptx.machine import Block
from ptx.memory import Array, GlobalMemory
from ptx.operations import bfloat16, program_of, widened
from ptx.program import Kernel

BORDERS = ("zeros", "mask", "circular", "shift")
WARPS, SLICE, PANEL_PIXELS = 4, 32, 16
REACH_INTS = 5


class Map(ctypes.Structure):
    _fields_ = [("data", c_uint64), ("batch", c_int64), ("channel", c_int64), ("row", c_int64), ("column", c_int64)]


class Axis(ctypes.Structure):
    _fields_ = [("reaches", c_uint64), ("length", c_int), ("dilation", c_int), ("circular", c_bool)]


class Grid(ctypes.Structure):
    _fields_ = [
        ("y", Axis), ("x", Axis),
        ("patches_down", c_int), ("patches_across", c_int), ("residues_across", c_int), ("patches", c_int),
        ("bias", c_uint64), ("bias_is_float32", c_bool), ("bias_batch_stride", c_int64),
        ("bias_columns", c_int), ("bias_size", c_int), ("heads", c_int), ("query_channels", c_int),
        ("value_channels", c_int), ("query_slices", c_int), ("value_slices", c_int),
        ("scale", c_float), ("logit_scale", c_float),
    ]  # fmt: skip


class Forward(ctypes.Structure):
    _fields_ = [("grid", Grid), *((name, Map) for name in ("query", "key", "value", "out"))]


class Backward(ctypes.Structure):
    _fields_ = [
        ("grid", Grid),
        *((name, Map) for name in ("query", "key", "value", "grad", "grad_query", "sum_key", "sum_value")),
        ("partial_bias", c_uint64), ("statistics", c_uint64), ("units", c_int),
    ]  # fmt: skip


class Neighbourhood(ctypes.Structure):
    _fields_ = [
        ("kernel_size", c_int64), ("dilation", c_int64), ("stride", c_int64), ("border", c_int),
        ("window_stride", c_int64), ("causal", c_bool),
    ]  # fmt: skip


class ReachPass(ctypes.Structure):
    _fields_ = [
        ("axes", Neighbourhood * 2), ("lengths", c_int64 * 2), ("reaches", c_uint64 * 2), ("relative", c_bool),
    ]  # fmt: skip


@dataclass(frozen=True)
class NumberType:
    """How numbers of a type are in memory."""

    mangled: str
    storage: type[Any]

    def stored(self, numbers: Array) -> Array:
        numbers = numbers.astype(np.float32)
        return bfloat16(numbers) if self.mangled == "13__nv_bfloat16" else numbers.astype(self.storage)

    def read(self, stored: Array) -> Array:
        return (widened(stored) if self.mangled == "13__nv_bfloat16" else stored).astype(np.float64)


FLOAT32, BFLOAT16, FLOAT16 = (
    NumberType("f", np.float32), NumberType("13__nv_bfloat16", np.uint16), NumberType("6__half", np.float16),
)  # fmt: skip


def divide_up(whole: int, part: int) -> int:
    return -(-whole // part)


class Call:
    """A call of neighborhood_attention on a machine's memory."""

    def __init__(self, kernels: dict[str, Kernel], kind: NumberType, vector: bool, options: dict[str, Any],
                 arrays: dict[str, Array]) -> None:  # fmt: skip
        self.kernels, self.kind, self.vector, self.options = kernels, kind, vector, options
        self.memory = GlobalMemory()
        self.batch, channels, self.height, self.width = arrays["query"].shape
        self.heads = options["heads"]
        self.maps = {name: self.place(arrays[name]) for name in ("query", "key", "value", "grad")}
        self.bias = arrays["bias"].astype(np.float32)
        self.grid = self._grid(channels // self.heads, arrays["value"].shape[1] // self.heads)

    def place(
        self, array: Array, kind: NumberType | None = None, channels_last: bool | None = None
    ) -> tuple[Map, Array]:
        """Put a (B, C, H, W) map into memory; return what kernels are told of it, and its numbers as such a map."""
        stored = np.ascontiguousarray((kind or self.kind).stored(array))
        if self.vector if channels_last is None else channels_last:
            stored = np.ascontiguousarray(stored.transpose(0, 2, 3, 1))
            seen = stored.transpose(0, 3, 1, 2)
        else:
            seen = stored
        return Map(self.memory.add(stored), *(stride // stored.itemsize for stride in seen.strides)), seen

    def launch(self, name: str, arguments: ctypes.Structure, blocks: tuple[int, int, int], threads: int,
               shared_bytes: int) -> None:  # fmt: skip
        """Run the kernel with that in its name, all its thread blocks."""
        (kernel,) = (kernel for mangled, kernel in self.kernels.items() if name in mangled)
        assert kernel.parameter_bytes == ctypes.sizeof(arguments), f"{name} has other arguments"
        program = program_of(kernel)
        for number in np.random.default_rng(0).permutation(np.prod(blocks)):
            index = (number % blocks[0], number // blocks[0] % blocks[1], number // blocks[0] // blocks[1])
            Block(kernel, bytes(arguments), index, blocks, threads, shared_bytes, self.memory).run(program)

    def forward(self) -> Array:
        out = self.place(np.full(self.maps["value"][1].shape, np.nan))
        arguments = Forward(self.grid, *(self.maps[name][0] for name in ("query", "key", "value")), out[0])
        blocks = (self.batch * self._groups(), self.heads * self.grid.value_slices, 1)
        self._run("forward", arguments, blocks, self.grid.query_slices + 2)
        return self.kind.read(out[1])

    def backward(self, units: int) -> dict[str, Array]:
        """Return all gradients; that of the bias from ``units`` partial sums of every sample."""
        shapes = {name: found.shape for name, (_, found) in self.maps.items()}
        grad_query = self.place(np.full(shapes["query"], np.nan))
        sums = {name: self.place(np.zeros(shapes[name]), FLOAT32, True) for name in ("key", "value")}
        partial = np.full((self.batch, units, *self.bias.shape), np.nan, np.float32)
        statistics = np.full((self.batch, self.heads, self.height, self.width, 2), np.nan, np.float32)
        arguments = Backward(
            self.grid, *(found for found, _ in self.maps.values()), grad_query[0], sums["key"][0], sums["value"][0],
            self.memory.add(partial), self.memory.add(statistics), units,
        )  # fmt: skip
        grid, groups = self.grid, self._groups()
        panels = grid.query_slices + grid.value_slices + 2
        both = max(grid.query_slices, grid.value_slices)
        self._run("statistics", arguments, (self.batch * groups, self.heads, 1), panels)
        extra = 4 * WARPS * (PANEL_PIXELS * (PANEL_PIXELS + 1) + grid.bias_size)
        self._run("outputs", arguments, (self.batch * units, self.heads * grid.query_slices, 1), panels, extra)
        self._run("sources", arguments, (self.batch * groups, self.heads * both, 1), panels)
        return {
            "query": self.kind.read(grad_query[1]),
            "key": sums["key"][1].astype(np.float64),
            "value": sums["value"][1].astype(np.float64),
            "bias": partial.sum((0, 1), dtype=np.float64),
        }

    def _run(self, name: str, arguments: ctypes.Structure, blocks: tuple[int, int, int], panels: int,
             more_bytes: int = 0) -> None:  # fmt: skip
        size = np.dtype(self.kind.storage).itemsize
        bias_bytes = 4 * divide_up(self.grid.bias_size, 4) * 4
        panel_bytes = PANEL_PIXELS * (SLICE * size + 16)
        mangled = f"{name}_patch_kernelI{self.kind.mangled}Lb{self.vector:d}E"
        self.launch(mangled, arguments, blocks, 32 * WARPS, bias_bytes + WARPS * panels * panel_bytes + more_bytes)

    def _groups(self) -> int:
        return divide_up(self.grid.patches, WARPS)

    def _grid(self, query_channels: int, value_channels: int) -> Grid:
        lengths = (self.height, self.width)
        tables = [np.full((length, REACH_INTS), -(2**30), np.int32) for length in lengths]
        addresses = [self.memory.add(table) for table in tables]
        relative = self.bias.ndim == 3
        axes = [self._axis(axis) for axis in (0, 1)]
        reaches = ReachPass(
            (Neighbourhood * 2)(*axes), (c_int64 * 2)(*lengths), (c_uint64 * 2)(*addresses), relative
        )  # fmt: skip
        self.launch("reach_kernel", reaches, (2, 1, 1), 256, 0)
        circular = self.options["border"] == "circular"
        dilations = [axis.dilation for axis in axes]
        down, across = (
            divide_up(divide_up(length, dilation), side)
            for length, dilation, side in zip(lengths, dilations, (2, 8), strict=True)
        )
        kernel = tuple(axis.kernel_size for axis in axes)
        rows, columns = tuple(2 * size - 1 for size in kernel) if relative else kernel
        scale = self.options["scale"]
        return Grid(
            *(Axis(*axis, circular) for axis in zip(addresses, lengths, dilations, strict=True)),
            down, across, min(dilations[1], self.width),
            down * across * min(dilations[0], self.height) * min(dilations[1], self.width),
            self.memory.add(self.bias), True, 0, columns, rows * columns, self.heads, query_channels, value_channels,
            divide_up(query_channels, SLICE), divide_up(value_channels, SLICE), scale, scale * np.log2(np.e),
        )  # fmt: skip

    def _axis(self, axis: int) -> Neighbourhood:
        given = self.options
        return Neighbourhood(
            given["kernel_size"][axis], given["dilation"][axis], 1, BORDERS.index(given["border"]),
            given["window_stride"][axis], bool(given["causal"][axis]),
        )  # fmt: skip

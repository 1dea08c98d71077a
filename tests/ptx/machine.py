"""Thread blocks that run PTX: warps of 32 lanes, which may diverge, one instruction after another."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.memory import Array, Fault, GlobalMemory, SharedMemory
from ptx.program import Kernel

LANES = 32
# Where generic addresses have shared memory.
SHARED_WINDOW = 1 << 40

Step = Callable[["Warp", Array], None]


class Block:
    """One thread block."""

    def __init__(
        self, kernel: Kernel, parameters: bytes, index: tuple[int, ...], grid: tuple[int, ...], threads: int,
        shared_bytes: int, memory: GlobalMemory,
    ) -> None:  # fmt: skip
        self.kernel, self.memory = kernel, memory
        self.parameters = np.frombuffer(parameters, np.uint8)
        self.shared = SharedMemory(shared_bytes, threads // LANES)
        self.index, self.grid, self.threads = index, grid, threads
        self.warps = [Warp(self, number) for number in range(threads // LANES)]

    def run(self, program: list[Step]) -> None:
        """Run all warps to their end."""
        while True:
            with np.errstate(all="ignore"):  # kernels may overflow, and lanes that are not active compute anything
                for warp in self.warps:
                    warp.run(program)
            waiting = [warp for warp in self.warps if not warp.ended.all()]
            if not waiting:
                return
            if any(not (warp.at_barrier | warp.ended).all() for warp in waiting):
                raise Fault("some lanes of a warp wait at a barrier, others do not")
            if len({int(place) for warp in waiting for place in warp.places[warp.at_barrier]}) > 1:
                raise Fault("warps wait at different barriers")
            if len(waiting) < len(self.warps) or any(warp.ended.any() for warp in waiting):
                raise Fault("a barrier waits for threads that have ended")
            self.shared.pass_block_barrier()
            for warp in waiting:
                warp.at_barrier[:] = False


class Warp:
    """32 lanes. Those that are behind run first, so that they come together again as early as they can."""

    def __init__(self, block: Block, number: int) -> None:
        self.block, self.number = block, number
        self.threads = np.arange(LANES) + LANES * number
        self.places = np.zeros(LANES, np.int64)
        self.ended, self.at_barrier = np.zeros(LANES, bool), np.zeros(LANES, bool)
        self._registers: dict[str, Array] = {}
        self._special = {"%tid.x": self.threads.astype(np.uint32)}
        for axis, here, all_ in zip("xyz", block.index, block.grid, strict=True):
            self._special[f"%ctaid.{axis}"] = np.full(LANES, here, np.uint32)
            self._special[f"%nctaid.{axis}"] = np.full(LANES, all_, np.uint32)

    def run(self, program: list[Step]) -> None:
        """Run until all lanes have ended or wait for the thread block."""
        while (live := ~(self.ended | self.at_barrier)).any():
            place = int(self.places[live].min())
            active = live & (self.places == place)
            if place >= len(program):
                self.ended |= active
                continue
            instruction = self.block.kernel.instructions[place]
            self.places[active] = place + 1
            if instruction.guard is not None:
                active = active & (self.get(instruction.guard, np.bool_) != instruction.negated)
            try:
                program[place](self, active)
            except Fault as fault:
                raise Fault(f"{fault}: warp {self.number}, {instruction.text}") from None

    def get(self, name: str, kind: type[Any]) -> Array:
        """Return what all lanes have of a register or a constant, as numbers of a type of its size."""
        if not name.startswith("%"):
            return constant(name, kind)
        value = self._special.get(name)
        if value is None:
            value = self._registers.get(name)
        if value is None:
            raise Fault(f"register {name} is read before it is written")
        if value.dtype == kind:
            return value
        size = np.dtype(kind).itemsize
        if value.dtype.itemsize < size:
            raise Fault(f"register {name} has {value.dtype.itemsize} bytes, not those of {kind.__name__}")
        # Conversions and stores may take the lower part of a register.
        return value.view(kind) if value.dtype.itemsize == size else value.astype(f"u{size}").view(kind)

    def put(self, name: str, value: Array, active: Array) -> None:
        """Give a register its numbers in the lanes that are active."""
        if name == "_":
            return
        if not active.all():
            old = self._registers.get(name)
            # What inactive lanes have is nobody's business until they write it.
            value = np.where(active, value, np.zeros_like(value) if old is None else old.view(value.dtype))
        self._registers[name] = value

    def addresses(self, operand: str) -> Array:
        """Return the addresses that an operand such as ``[%rd1+8]`` gives."""
        match = re.fullmatch(r"\[\s*([^+\]]+?)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
        if match is None:
            raise Fault(f"{operand} is no address")
        base, offset = match[1], int(match[2] or 0)
        if not base.startswith("%"):
            return np.full(LANES, offset, np.int64)
        kind = np.int64 if self.block.kernel.widths[base.rstrip("0123456789")] == 64 else np.uint32
        return self.get(base, kind).astype(np.int64) + offset

    def expect_all(self, active: Array) -> None:
        """All lanes have to take part."""
        if not active.all():
            raise Fault(f"only {int(active.sum())} lanes take part")


_constants: dict[tuple[str, type[Any]], Array] = {}


def constant(text: str, kind: type[Any]) -> Array:
    """Return a literal, or the address of shared memory, which is 0, for all lanes."""
    key = (text, kind)
    if key not in _constants:
        size = np.dtype(kind).itemsize
        if match := re.fullmatch(r"0([fd])([0-9a-fA-F]+)", text):
            bits = np.array([int(match[2], 16)], np.uint32 if match[1] == "f" else np.uint64)
            value = bits.view(np.float32 if match[1] == "f" else np.float64).astype(kind)[0]
        elif re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", text):
            number = int(text, 0) & ((1 << 8 * size) - 1)
            value = np.array([number], np.dtype(f"u{size}")).view(kind)[0] if kind is not np.bool_ else bool(number)
        else:
            value = kind(0)
        _constants[key] = np.full(LANES, value, kind)
    return _constants[key]

"""Thread blocks that run PTX side by side: an instruction of all their threads after another."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ptx.counts import Counts
from ptx.memory import LANES, Access, Array, Fault, GlobalMemory, SharedMemory
from ptx.program import Kernel

# Which threads an instruction is for; None stands for all.
Active = Array | None
Step = Callable[["Machine", Active], None]
Source = Callable[["Machine"], Array]

# As many threads run side by side, if there are as many: the longer NumPy's arrays, the fewer of its calls.
MOST_THREADS = 2048


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel."""

    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    parameters: bytes

    @property
    def blocks(self) -> int:
        """The number of thread blocks."""
        return self.grid[0] * self.grid[1] * self.grid[2]


def run(
    kernel: Kernel, program: list[Step], launch: Launch, memory: GlobalMemory, counts: Counts | None = None
) -> None:
    """Run all thread blocks of a launch; ``program`` is what the instructions of the kernel do."""
    if kernel.parameter_bytes != len(launch.parameters):
        raise Fault(f"{kernel.name} takes {kernel.parameter_bytes} bytes and is given {len(launch.parameters)}")
    memory.begin_launch()
    together = max(MOST_THREADS // launch.threads, 1)
    for first in range(0, launch.blocks, together):
        blocks = np.arange(first, min(first + together, launch.blocks))
        Machine(kernel, launch, blocks, memory, counts).run(program)


class Machine:
    """Thread blocks that run together. Threads that are behind go first, so that they meet others again early."""

    def __init__(
        self, kernel: Kernel, launch: Launch, blocks: Array, memory: GlobalMemory, counts: Counts | None
    ) -> None:
        assert launch.threads % LANES == 0
        self.kernel, self.launch, self.memory, self.counts = kernel, launch, memory, counts
        self.parameters = np.frombuffer(launch.parameters, np.uint8)
        self.shared = SharedMemory(launch.shared_bytes, blocks.size, kernel.shared_word)
        self.count = blocks.size * launch.threads
        threads = np.arange(self.count)
        self.lane, self.slot = threads % LANES, threads // launch.threads
        self.number = blocks[self.slot] * launch.threads + threads % launch.threads
        self.places = np.zeros(self.count, np.int64)
        self.ended, self.waiting = np.zeros(self.count, bool), np.zeros(self.count, bool)
        self._warp_times, self._block_times = np.ones(self.count, np.int64), np.ones(self.count, np.int64)
        self.registers: dict[str, Array] = {"%tid.x": (threads % launch.threads).astype(np.uint32)}
        number = blocks[self.slot]
        for axis, length in zip("xyz", launch.grid, strict=True):
            self.registers[f"%ctaid.{axis}"] = (number % length).astype(np.uint32)
            self.registers[f"%nctaid.{axis}"] = np.full(self.count, length, np.uint32)
            number = number // length

    def run(self, program: list[Step]) -> None:
        """Run all threads to their end."""
        with np.errstate(all="ignore"):  # kernels may overflow, and threads that are not active compute anything
            while not self.ended.all():
                while not (ready := ~(self.ended | self.waiting)).any():
                    self._pass_barriers()
                place = int(self.places[ready].min())
                here = ready & (self.places == place)
                others = self.places[ready & ~here]
                self._run_until(program, place, int(others.min()) if others.size else len(program), here)

    def _run_until(self, program: list[Step], place: int, end: int, here: Array) -> None:
        """Run the threads that are at one place until they part, wait, end, or come to where others are."""
        everyone = None if here.all() else here
        instructions = self.kernel.instructions
        while place < end:
            instruction = instructions[place]
            active = everyone
            if instruction.guard is not None:
                active = here & (self.registers[instruction.guard] != instruction.negated)
                active = None if active.all() else active
            self.places[here] = place = place + 1
            if active is None or active.any():
                if self.counts is not None:
                    self.counts.issue(instruction, self.warps(active))
                try:
                    program[place - 1](self, active)
                except Fault as fault:
                    raise Fault(f"{fault}: {instruction.text}, in {self.kernel.name}") from None
            if instruction.moves_threads:
                return

    def _pass_barriers(self) -> None:
        """Let the blocks go on whose threads all wait at one barrier."""
        waiting = self.waiting.reshape(-1, self.launch.threads)
        ended = self.ended.reshape(-1, self.launch.threads)
        places = np.where(waiting, self.places.reshape(waiting.shape), 0)
        if (waiting & (places != places.max(1)[:, None])).any():
            raise Fault(f"threads wait at different barriers, in {self.kernel.name}")
        if (waiting.any(1) & ended.any(1)).any():
            raise Fault(f"a barrier waits for threads that have ended, in {self.kernel.name}")
        self._block_times[self.waiting] += 1
        self._warp_times[self.waiting] += 1
        self.waiting[:] = False

    def pass_warp_barrier(self, active: Active) -> None:
        """The lanes of warps have waited for each other."""
        self.expect_warps(active)
        self._warp_times[self.chosen(active)] += 1

    def chosen(self, active: Active) -> Any:
        """Return an index of the threads that are active."""
        return slice(None) if active is None else active

    def warps(self, active: Active) -> int:
        """Return the number of warps that have active lanes."""
        return self.count // LANES if active is None else int(active.reshape(-1, LANES).any(1).sum())

    def expect_warps(self, active: Active) -> None:
        """Where a lane takes part, so do all of its warp."""
        if active is None:
            return
        lanes = active.reshape(-1, LANES).sum(1)
        if ((lanes > 0) & (lanes < LANES)).any():
            raise Fault(f"only {lanes[(lanes > 0) & (lanes < LANES)][0]} lanes of a warp take part")

    def access(self, addresses: Array, size: int, active: Active, used: tuple[bool, ...] = (True,)) -> Access:
        """Return what the active threads do to memory."""
        chosen = self.chosen(active)
        addresses = np.broadcast_to(addresses, self.count)[chosen]
        threads, slots = self.number[chosen], self.slot[chosen]
        warp_times, block_times = self._warp_times[chosen], self._block_times[chosen]
        return Access(threads, slots, warp_times, block_times, addresses, size, self.launch.threads, used)

    def put(self, name: str, value: Array, active: Active) -> None:
        """Give a register its numbers in the threads that are active."""
        if active is not None:
            old = self.registers.get(name)
            # What other threads have is nobody's business until they write it.
            value = np.where(active, value, value.dtype.type(0) if old is None else old.view(value.dtype))
        elif value.shape != (self.count,):
            value = np.full(self.count, value)
        self.registers[name] = value


def source(operand: str, kind: type[Any]) -> Source:
    """Return what reads a register, or has a constant, as numbers of a type."""
    if not operand.startswith("%"):
        number = constant(operand, kind)
        return lambda machine: number
    dtype = np.dtype(kind)

    def read(machine: Machine) -> Array:
        value = machine.registers.get(operand)
        if value is None:
            raise Fault(f"register {operand} is read before it is written")
        if value.dtype is dtype:
            return value
        if value.dtype.itemsize < dtype.itemsize:
            raise Fault(f"register {operand} has {value.dtype.itemsize} bytes, not those of {dtype}")
        if value.dtype.itemsize > dtype.itemsize:  # conversions and stores may take the lower part of a register
            value = value.view(f"u{value.dtype.itemsize}").astype(f"u{dtype.itemsize}")
        return value.view(dtype)

    return read


def constant(text: str, kind: type[Any]) -> Any:
    """Return a literal; or the address of a name, which is 0, since shared memory and parameters each have one."""
    if match := re.fullmatch(r"0([fd])([0-9a-fA-F]+)", text):
        bits = np.array(int(match[2], 16), np.uint32 if match[1] == "f" else np.uint64)
        return bits.view(np.float32 if match[1] == "f" else np.float64)[()].astype(kind)
    if not re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", text):
        return kind(0)
    number = int(text, 0)
    if kind is np.bool_:
        return np.bool_(number)
    size = np.dtype(kind).itemsize
    return np.array(number & ((1 << 8 * size) - 1), f"u{size}").view(kind)[()]


def address(operand: str, kernel: Kernel) -> Source:
    """Return what gives the addresses of an operand such as ``[%rd1+8]``."""
    match = re.fullmatch(r"\[\s*([^+\]]+?)\s*(?:\+\s*(-?\d+))?\s*\]", operand)
    if match is None:
        raise NotImplementedError(f"ptx: {operand} is no address")
    base, offset = match[1], int(match[2] or 0)
    if not base.startswith("%"):
        return lambda machine: np.int64(offset)
    read = source(base, np.int64 if kernel.width(base) == 64 else np.uint32)
    return lambda machine: read(machine).astype(np.int64) + offset

"""What PTX instructions do, for all threads at once; the names and meanings are those of the PTX manual.

An operation or a modifier that no kernel here uses is missing: it is named when a kernel comes to use it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.arithmetic import (
    BITS,
    TYPES,
    Unknown,
    convert,
    function,
    insert,
    multiply_add,
    multiply_widely,
    permute,
    power_of_two,
    simple,
    vector,
    widened,
)
from ptx.machine import Active, Machine, Step, address, source
from ptx.memory import LANES, Array, Fault
from ptx.program import Instruction, Kernel

# Where generic addresses have shared memory.
SHARED_WINDOW = 1 << 40


def load(instruction: Instruction, kernel: Kernel) -> Step:
    """``ld``: one to four numbers side by side."""
    to, where = vector(instruction.operands[0]), address(instruction.operands[1], kernel)
    space, kind, size = instruction.parts[1], TYPES[instruction.parts[-1]], instruction.accessed_bytes
    if space not in ("shared", "param", "global") or set(instruction.parts[2:-1]) - {"v2", "v4"}:
        raise Unknown(instruction)
    # The compiler loads padding together with what lies before it.
    used = tuple(name in kernel.sources for name in to)

    def step(machine: Machine, active: Active) -> None:
        if space == "param":
            places = np.broadcast_to(where(machine), machine.count)[machine.chosen(active)]
            data = machine.parameters[places[:, None] + np.arange(size)]
        else:
            access = machine.access(where(machine), size, active, used)
            if machine.counts is not None:
                machine.counts.access(space, access)
            data = machine.shared.read(access) if space == "shared" else machine.memory.read(access)
        numbers = np.ascontiguousarray(data).view(kind).reshape(-1, len(to))
        for index, name in enumerate(to):
            machine.put(name, spread(numbers[:, index], machine, active, BITS[kernel.width(name)]), active)

    return step


def spread(numbers: Array, machine: Machine, active: Active, width: type[Any]) -> Array:
    """Return numbers of active threads as numbers of all, of the width of a register, which may be wider."""
    if numbers.dtype.itemsize != np.dtype(width).itemsize:
        numbers = numbers.astype(width)
    if active is None:
        return np.ascontiguousarray(numbers)
    whole = np.zeros(machine.count, numbers.dtype)
    whole[active] = numbers
    return whole


def store(instruction: Instruction, kernel: Kernel) -> Step:
    """``st``: one to four numbers side by side."""
    where, names = address(instruction.operands[0], kernel), vector(instruction.operands[1])
    space, size = instruction.parts[1], instruction.accessed_bytes
    sources = [source(name, TYPES[instruction.parts[-1]]) for name in names]
    if space not in ("shared", "global") or set(instruction.parts[2:-1]) - {"v2", "v4"}:
        raise Unknown(instruction)

    def step(machine: Machine, active: Active) -> None:
        chosen = machine.chosen(active)
        numbers = np.stack([np.broadcast_to(read(machine), machine.count)[chosen] for read in sources], 1)
        access = machine.access(where(machine), size, active)
        if machine.counts is not None:
            machine.counts.access(space, access)
        (machine.shared if space == "shared" else machine.memory).write(access, numbers.view(f"V{size}")[:, 0])

    return step


# Of an 8 × 8 matrix that is spread over a warp, each lane has two neighbours of a row.
ROW, COLUMN = np.arange(LANES) // 4, np.arange(LANES) % 4 * 2


def by_warp(numbers: Array) -> Array:
    return numbers.reshape(-1, LANES)


def load_matrices(instruction: Instruction, kernel: Kernel) -> Step:
    """``ldmatrix``: four 8 × 8 matrices of 16-bit numbers, whose rows the lanes give."""
    to, where = vector(instruction.operands[0]), address(instruction.operands[1], kernel)
    transposed = "trans" in instruction.parts
    if instruction.operation.replace(".trans", "") != "ldmatrix.sync.aligned.m8n8.x4.shared.b16":
        raise Unknown(instruction)

    def step(machine: Machine, active: Active) -> None:
        machine.expect_warps(active)
        access = machine.access(where(machine), 16, active)
        if machine.counts is not None:
            machine.counts.access("shared", access)
        data = machine.shared.read(access)
        matrices = np.ascontiguousarray(data).view(np.uint16).reshape(-1, 4, 8, 8)
        for index, name in enumerate(to):
            matrix = matrices[:, index].swapaxes(1, 2) if transposed else matrices[:, index]
            pair = np.stack([matrix[:, ROW, COLUMN], matrix[:, ROW, COLUMN + 1]], -1)
            words = np.ascontiguousarray(pair).view(np.uint32).reshape(-1)
            machine.put(name, spread(words, machine, active, np.uint32), active)

    return step


def halves(words: Array, kind: str) -> tuple[Array, Array]:
    """Return the lower and the upper 16-bit number of every word, as float64, by warp."""
    pair = by_warp(words)[..., None].view(np.uint16)
    numbers = (widened(pair) if kind == "bf16" else pair.view(np.float16)).astype(np.float64)
    return numbers[..., 0], numbers[..., 1]


def multiply_matrices(instruction: Instruction, kernel: Kernel) -> Step:
    """``mma.m16n8k16`` of 16-bit numbers with sums in float32."""
    to, *given = (vector(operand) for operand in instruction.operands)
    left, right = ([source(name, np.uint32) for name in names] for names in given[:2])
    sums = [source(name, np.float32) for name in given[2]]
    kind = instruction.parts[-2]
    known = [f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32" for kind in ("f16", "bf16")]
    if instruction.operation not in known:
        raise Unknown(instruction)

    def step(machine: Machine, active: Active) -> None:
        machine.expect_warps(active)
        warps = machine.count // LANES
        a, b, c = np.zeros((warps, 16, 16)), np.zeros((warps, 16, 8)), np.zeros((warps, 16, 8))
        for index, read in enumerate(left):
            for half, number in enumerate(halves(read(machine), kind)):
                a[:, ROW + 8 * (index % 2), COLUMN + half + 8 * (index // 2)] = number
        for index, read in enumerate(right):
            words = np.broadcast_to(read(machine), machine.count)
            for half, number in enumerate(halves(np.ascontiguousarray(words), kind)):
                b[:, COLUMN + half + 8 * index, ROW] = number
        for index, read in enumerate(sums):
            c[:, ROW + 8 * (index // 2), COLUMN + index % 2] = by_warp(np.broadcast_to(read(machine), machine.count))
        product = (a @ b + c).astype(np.float32)
        for index, name in enumerate(to):
            machine.put(name, product[:, ROW + 8 * (index // 2), COLUMN + index % 2].reshape(-1), active)

    return step


def exchange(instruction: Instruction, kernel: Kernel) -> Step:
    """``shfl``: every lane reads another one's number."""
    (to, *predicate), name, lane, rest, members = (
        instruction.operands[0].split("|"), *instruction.operands[1:],
    )  # fmt: skip
    how = instruction.parts[2]
    if instruction.operation not in ("shfl.sync.bfly.b32", "shfl.sync.idx.b32"):
        raise Unknown(instruction)
    read, other = source(name, np.uint32), source(lane, np.uint32)
    all_lanes, all_members = source(rest, np.uint32), source(members, np.uint32)

    def step(machine: Machine, active: Active) -> None:
        machine.expect_warps(active)
        chosen = machine.chosen(active)
        given = np.broadcast_arrays(machine.lane, *(number(machine) for number in (other, all_lanes, all_members)))
        if (given[2][chosen] != LANES - 1).any() or (given[3][chosen] != 0xFFFFFFFF).any():
            raise Unknown(instruction)
        lanes = given[1].astype(np.int64) ^ (given[0] if how == "bfly" else 0)
        if (lanes[chosen] >= LANES).any():
            raise Fault("a lane is exchanged with that does not exist")
        numbers = by_warp(np.broadcast_to(read(machine), machine.count))
        machine.put(to, np.take_along_axis(numbers, by_warp(lanes % LANES), 1).reshape(-1), active)
        if predicate:
            machine.put(predicate[0], np.ones(machine.count, bool), active)

    return step


def address_space(instruction: Instruction, kernel: Kernel) -> Step:
    """``cvta``: between addresses of one memory and of any."""
    to, name = instruction.operands
    offset = np.uint64(SHARED_WINDOW if "shared" in instruction.parts else 0)
    into = np.subtract if "to" in instruction.parts else np.add
    return function(to, lambda place: into(place, offset), source(name, np.uint64))


def branch(instruction: Instruction, kernel: Kernel) -> Step:
    place = kernel.labels[instruction.operands[0]]

    def step(machine: Machine, active: Active) -> None:
        machine.places[machine.chosen(active)] = place

    return step


def end(instruction: Instruction, kernel: Kernel) -> Step:
    def step(machine: Machine, active: Active) -> None:
        machine.ended[machine.chosen(active)] = True

    return step


def barrier(instruction: Instruction, kernel: Kernel) -> Step:
    def wait_for_block(machine: Machine, active: Active) -> None:
        machine.expect_warps(active)
        machine.waiting[machine.chosen(active)] = True

    if instruction.operation == "bar.warp.sync" and instruction.operands in (("-1",), ("0xffffffff",)):
        return lambda machine, active: machine.pass_warp_barrier(active)
    if instruction.operation == "bar.sync" and instruction.operands == ("0",):
        return wait_for_block
    raise Unknown(instruction)


SPECIAL: dict[str, Callable[[Instruction, Kernel], Step]] = {
    "mad": multiply_add, "fma": multiply_add, "ex2": power_of_two, "cvt": convert, "bfi": insert, "prmt": permute,
    "ld": load, "st": store, "ldmatrix": load_matrices, "mma": multiply_matrices, "shfl": exchange,
    "cvta": address_space, "bra": branch, "ret": end, "bar": barrier,
}  # fmt: skip


def step_of(instruction: Instruction, kernel: Kernel) -> Step:
    """Return what an instruction does."""
    if instruction.parts[:2] in (("mul", "wide"), ("mul", "hi")):
        return multiply_widely(instruction, kernel)
    try:
        return SPECIAL.get(instruction.parts[0], simple)(instruction, kernel)
    except (KeyError, IndexError, ValueError) as missing:
        raise Unknown(instruction) from missing


def program_of(kernel: Kernel) -> list[Step]:
    """Return what the instructions of a kernel do."""
    return [step_of(instruction, kernel) for instruction in kernel.instructions]

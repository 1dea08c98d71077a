"""What PTX instructions do, for all threads at once; the names and meanings are those of the PTX manual.

An operation or a modifier that no kernel here uses is missing: it is named when a kernel comes to use it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.machine import Active, Machine, Source, Step, address, source
from ptx.memory import LANES, Array, Fault
from ptx.program import Instruction, Kernel, operands

# Where generic addresses have shared memory.
SHARED_WINDOW = 1 << 40

TYPES: dict[str, type[Any]] = {
    "pred": np.bool_,
    **{f"{sign}{bits}": getattr(np, f"uint{bits}") for sign in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
WIDER = {np.uint16: np.uint32, np.int16: np.int32, np.uint32: np.uint64, np.int32: np.int64}
BITS: dict[int, type[Any]] = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


class Unknown(NotImplementedError):
    """An instruction that the interpreter does not know."""

    def __init__(self, instruction: Instruction) -> None:
        super().__init__(f"ptx: {instruction.text}")


def divide(x: Array, y: Array) -> Array:
    """Divide towards zero. Threads that are not active may divide by zero."""
    if x.dtype.kind == "f":
        return np.asarray(x / y)
    safe = np.where(y == 0, y.dtype.type(1), y)
    down = x // safe
    return np.asarray(down + ((down < 0) & (down * safe != x)).astype(x.dtype))


def remainder(x: Array, y: Array) -> Array:
    return np.asarray(x - divide(x, y) * y)


def shift_left(x: Array, count: Array) -> Array:
    """A count beyond the width leaves nothing."""
    bits = 8 * x.dtype.itemsize
    return np.where(count < bits, x << np.minimum(count, bits - 1).astype(x.dtype), x.dtype.type(0))


def shift_right(x: Array, count: Array) -> Array:
    """A count beyond the width leaves nothing, or the sign."""
    bits = 8 * x.dtype.itemsize
    shifted = x >> np.minimum(count, bits - 1).astype(x.dtype)
    return shifted if x.dtype.kind == "i" else np.where(count < bits, shifted, x.dtype.type(0))


def unequal(x: Array, y: Array) -> Array:
    """Neither is NaN, and they differ."""
    return np.asarray((x < y) | (x > y))


# The unordered ones hold for NaN.
COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "equ": lambda x, y: ~unequal(x, y), "neu": np.not_equal, "ltu": lambda x, y: ~(x >= y),
    "leu": lambda x, y: ~(x > y), "gtu": lambda x, y: ~(x <= y), "geu": lambda x, y: ~(x < y),
    "num": lambda x, y: (x == x) & (y == y), "nan": lambda x, y: (x != x) | (y != y),
}  # fmt: skip
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.fmin, "max": np.fmax, "div": divide,
    "rem": remainder, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "copysign": lambda x, y: np.copysign(y, x),
}  # fmt: skip
UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": np.negative, "not": np.invert, "abs": np.abs, "rcp": np.reciprocal, "mov": lambda x: x,
}  # fmt: skip
# By operation, what may stand between its name and its type without another meaning: all round to the nearest.
PLAIN = {"add": {"rn"}, "sub": {"rn"}, "mul": {"rn", "lo"}, "div": {"rn"}, "rcp": {"rn"}}


def widened(bits: Array) -> Array:
    """Return bfloat16 numbers as float32."""
    return np.asarray(bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bfloat16(numbers: Array) -> Array:
    """Round float32 numbers to the nearest bfloat16, and to an even one of two."""
    bits = np.asarray(numbers, np.float32).view(np.uint32)
    rounded = (bits + ((bits >> np.uint32(16) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), rounded.astype(np.uint16))


def vector(operand: str) -> tuple[str, ...]:
    """Return the registers of an operand such as ``{%r1, %r2}``, or the one that it is."""
    return operands(operand.strip("{}"))


def function(to: str, of: Callable[..., Array], *sources: Source) -> Step:
    """Return the step that puts a function of some numbers into a register."""
    return lambda machine, active: machine.put(to, of(*(read(machine) for read in sources)), active)


def simple(instruction: Instruction, kernel: Kernel) -> Step:
    """Operations whose result is a function of numbers of one type."""
    name, modifiers, kind = instruction.parts[0], instruction.parts[1:-1], TYPES[instruction.parts[-1]]
    to, *names = instruction.operands
    sources = [source(operand, kind) for operand in names]
    if name == "mov" and names[0].startswith("{"):
        return join(to, vector(names[0]), kind)
    if name == "mov" and to.startswith("{"):
        return split(vector(to), sources[0], kind)
    if name == "setp" and modifiers[0] == "ne" and len(modifiers) == 1:
        return function(to, unequal if np.issubdtype(kind, np.floating) else np.not_equal, *sources)
    if name == "setp" and modifiers[0] in COMPARISONS and len(modifiers) == 1:
        return function(to, COMPARISONS[modifiers[0]], *sources)
    if set(modifiers) - PLAIN.get(name, set()):
        raise Unknown(instruction)
    if name in BINARY:
        return function(to, BINARY[name], *sources)
    if name in UNARY:
        return function(to, UNARY[name], *sources)
    if name in ("shl", "shr"):
        return function(to, shift_left if name == "shl" else shift_right, sources[0], source(names[1], np.uint32))
    if name == "selp":
        return function(to, np.where, source(names[2], np.bool_), *sources[:2])
    raise Unknown(instruction)


def join(to: str, names: tuple[str, ...], kind: type[Any]) -> Step:
    """Put the numbers of several registers side by side, the first lowest."""
    part = BITS[8 * np.dtype(kind).itemsize // len(names)]

    def side_by_side(*numbers: Array) -> Array:
        return np.stack(np.broadcast_arrays(*numbers), -1).view(kind)[..., 0]

    return function(to, side_by_side, *(source(name, part) for name in names))


def split(names: tuple[str, ...], read: Source, kind: type[Any]) -> Step:
    """Take a number apart."""
    part = BITS[8 * np.dtype(kind).itemsize // len(names)]

    def step(machine: Machine, active: Active) -> None:
        parts = np.ascontiguousarray(read(machine))[:, None].view(part)
        for index, name in enumerate(names):
            machine.put(name, np.ascontiguousarray(parts[:, index]), active)

    return step


def multiply_widely(instruction: Instruction, kernel: Kernel) -> Step:
    """``mul.wide`` and ``mul.hi``: what needs a type of twice the size."""
    to, *names = instruction.operands
    kind = TYPES[instruction.parts[2]]
    wide = WIDER[kind]
    bits = 8 * np.dtype(kind).itemsize

    def product(x: Array, y: Array) -> Array:
        exact = x.astype(wide) * y.astype(wide)
        return np.asarray(exact if instruction.parts[1] == "wide" else (exact >> wide(bits)).astype(kind))

    return function(to, product, *(source(name, kind) for name in names))


def multiply_add(instruction: Instruction, kernel: Kernel) -> Step:
    """``mad.lo`` of integers, ``fma`` of floating-point numbers, which rounds once."""
    to, *names = instruction.operands
    name, modifier, kind = instruction.parts
    sources = [source(operand, TYPES[kind]) for operand in names]
    if (name, modifier) == ("mad", "lo"):
        return function(to, lambda x, y, z: x * y + z, *sources)
    # The exact product of two float32 numbers is a float64 number; that of two float64 numbers nearly a long double.
    into, exact = (np.float32, np.float64) if kind == "f32" else (np.float64, np.longdouble)
    if name != "fma" or kind not in ("f32", "f64") or modifier not in ("rn", "rm"):
        raise Unknown(instruction)

    def rounded(x: Array, y: Array, z: Array) -> Array:
        precise = x.astype(exact) * y.astype(exact) + z.astype(exact)
        nearest = precise.astype(into)
        if modifier == "rn":
            return np.asarray(nearest)
        return np.where(nearest > precise, np.nextafter(nearest, into(-np.inf)), nearest)

    return function(to, rounded, *sources)


def power_of_two(instruction: Instruction, kernel: Kernel) -> Step:
    """``ex2.approx.ftz.f32``: numbers too small for full precision become 0."""
    if instruction.operation != "ex2.approx.ftz.f32":
        raise Unknown(instruction)
    least = np.finfo(np.float32).tiny

    def power(x: Array) -> Array:
        result = np.exp2(x)
        return np.where(result < least, np.float32(0), result)

    return function(instruction.operands[0], power, source(instruction.operands[1], np.float32))


def convert(instruction: Instruction, kernel: Kernel) -> Step:
    """``cvt``: numbers of one type to another."""
    to, name = instruction.operands
    *modifiers, into, from_ = instruction.parts[1:]
    width = BITS[kernel.width(to)]
    if modifiers == ["rn"] and (into, from_) == ("bf16", "f32"):
        return function(to, bfloat16, source(name, np.float32))
    if not modifiers and from_ == "bf16" and into == "f32":
        return function(to, widened, source(name, np.uint16))
    kind, other = TYPES[into], TYPES[from_]
    whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    (modifier,) = modifiers or ["rn"]

    def converted(x: Array) -> Array:
        if modifier == "sat":
            return np.asarray(np.clip(np.where(np.isnan(x), 0, x), 0, 1).astype(kind))
        x = whole[modifier](x) if modifier in whole else x
        if np.issubdtype(other, np.floating) and np.issubdtype(kind, np.integer):
            x = np.clip(np.where(np.isnan(x), 0, x), *limits)
        result = x.astype(kind)
        # A register may be wider than what is converted.
        return np.asarray(result if result.dtype.itemsize == np.dtype(width).itemsize else result.astype(width))

    if np.issubdtype(kind, np.integer):
        # The largest number that float64 has is below that of 64 bits.
        limits = np.iinfo(kind).min, np.nextafter(float(np.iinfo(kind).max) + 1, 0)
    if modifier not in ("rn", "sat", *whole) or (modifier == "sat" and not np.issubdtype(kind, np.floating)):
        raise Unknown(instruction)
    return function(to, converted, source(name, other))


def insert(instruction: Instruction, kernel: Kernel) -> Step:
    """``bfi``: some bits of one word in the place of those of another."""
    if instruction.operation != "bfi.b32":
        raise Unknown(instruction)
    to, *names = instruction.operands

    def inserted(bits: Array, word: Array, place: Array, length: Array) -> Array:
        bits, word, place, length = (number.astype(np.uint64) for number in (bits, word, place, length))
        mask = ((np.uint64(1) << length) - np.uint64(1)) << place
        return np.asarray((word & ~mask | bits << place & mask).astype(np.uint32))

    return function(to, inserted, *(source(name, np.uint32) for name in names))


def permute(instruction: Instruction, kernel: Kernel) -> Step:
    """``prmt``: four of the eight bytes of two words; 8 more than a byte's number stands for its sign."""
    if instruction.operation != "prmt.b32":
        raise Unknown(instruction)
    to, *names = instruction.operands

    def permuted(low: Array, high: Array, selector: Array) -> Array:
        both = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
        result = np.zeros(np.broadcast(low, high, selector).shape, np.uint32)
        for byte in range(4):
            chosen = (selector >> np.uint32(4 * byte)).astype(np.uint64) & np.uint64(15)
            found = both >> np.uint64(8) * (chosen & np.uint64(7)) & np.uint64(0xFF)
            found = np.where(chosen < 8, found, (found >> np.uint64(7)) * np.uint64(0xFF))
            result |= found.astype(np.uint32) << np.uint32(8 * byte)
        return result

    return function(to, permuted, *(source(name, np.uint32) for name in names))


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

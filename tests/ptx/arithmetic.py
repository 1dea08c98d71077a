"""What the PTX instructions do that compute a number of each thread from its own: arithmetic, conversions, bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ptx.machine import Active, Machine, Source, Step, source
from ptx.memory import Array
from ptx.program import Instruction, Kernel, operands

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

"""What PTX instructions do, for the 32 lanes of a warp at once; the names and meanings are those of the PTX manual.

An operation that no kernel here uses is missing: it is named when a kernel comes to use it.
"""

from typing import Any

import numpy as np
from ptx.machine import LANES, SHARED_WINDOW, Step, Warp
from ptx.memory import Array, Fault, check_alignment
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
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "neu": np.not_equal, "gtu": lambda x, y: ~(x <= y), "ltu": lambda x, y: ~(x >= y),
}  # fmt: skip


def divide(x: Array, y: Array) -> Array:
    """Divide towards zero. Lanes that are not active may divide by zero."""
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, y.dtype.type(1), y)
    quotient = abs(x) // abs(safe)
    return np.where((x < 0) != (safe < 0), -quotient, quotient) if x.dtype.kind == "i" else quotient


def remainder(x: Array, y: Array) -> Array:
    return x - divide(x, y) * y


def shift(x: Array, count: Array, left: bool) -> Array:
    """Shift as PTX does: counts beyond the width leave nothing, or the sign."""
    bits = x.dtype.itemsize * 8
    count = count.astype(np.int64)
    if left:
        return np.where(count < bits, x << np.minimum(count, bits - 1).astype(x.dtype), x.dtype.type(0))
    if x.dtype.kind == "i":
        return x >> np.minimum(count, bits - 1).astype(x.dtype)
    return np.where(count < bits, x >> np.minimum(count, bits - 1).astype(x.dtype), x.dtype.type(0))


BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.fmin, "max": np.fmax, "div": divide,
    "rem": remainder, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
UNARY = {"neg": np.negative, "not": np.invert, "abs": np.abs, "ex2": np.exp2, "lg2": np.log2, "rcp": np.reciprocal}


def widened(bits: Array) -> Array:
    """Return bfloat16 numbers as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def bfloat16(numbers: Array) -> Array:
    """Round float32 numbers to the nearest bfloat16, and to an even one of two."""
    bits = numbers.view(np.uint32)
    rounded = (bits + ((bits >> np.uint32(16) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), rounded.astype(np.uint16))


def halves(words: Array, kind: str) -> Array:
    """Return the two 16-bit numbers of every word, as float64 in a row."""
    pair = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], 1).astype(np.uint16)
    return (widened(pair) if kind == "bf16" else pair.view(np.float16)).astype(np.float64)


def vector(operand: str) -> tuple[str, ...]:
    """Return the registers of an operand such as ``{%r1, %r2}``, or the one that it is."""
    return operands(operand.strip("{}"))


def simple(instruction: Instruction) -> Step | None:
    """Operations whose result is a function of numbers of one type."""
    name, kind = instruction.parts[0], TYPES.get(instruction.parts[-1])
    to, *sources = instruction.operands
    if kind is None:
        return None
    of_kind: type[Any] = kind

    def numbers(warp: Warp) -> list[Array]:
        return [warp.get(source, of_kind) for source in sources]

    if name == "mov":
        if sources[0].startswith("{"):
            return lambda warp, active: warp.put(to, joined(warp, vector(sources[0]), of_kind), active)
        if to.startswith("{"):
            return lambda warp, active: split(warp, vector(to), warp.get(sources[0], of_kind), active)
        return lambda warp, active: warp.put(to, numbers(warp)[0], active)
    if name == "mul" and "wide" in instruction.parts:
        wide = WIDER[of_kind]
        return lambda warp, active: warp.put(to, np.multiply(*(x.astype(wide) for x in numbers(warp))), active)
    if name == "mul" and "hi" in instruction.parts:
        wide = WIDER[of_kind]
        return lambda warp, active: warp.put(
            to, (np.multiply(*(x.astype(wide) for x in numbers(warp))) >> wide(32)).astype(of_kind), active
        )
    if name in ("mad", "fma"):
        # Of float32 the product is exact in float64.
        exact = np.float64 if of_kind is np.float32 else of_kind
        if "wide" in instruction.parts:
            raise NotImplementedError(instruction.text)

        def multiply_add(warp: Warp, active: Array) -> None:
            x, y, z = (number.astype(exact) for number in numbers(warp))
            warp.put(to, (x * y + z).astype(of_kind), active)

        return multiply_add
    if name in BINARY:
        return lambda warp, active: warp.put(to, BINARY[name](*numbers(warp)).astype(of_kind), active)
    if name in UNARY:
        return lambda warp, active: warp.put(to, UNARY[name](numbers(warp)[0]), active)
    if name in ("shl", "shr"):
        return lambda warp, active: warp.put(
            to, shift(warp.get(sources[0], of_kind), warp.get(sources[1], np.uint32), name == "shl"), active
        )
    if name == "selp":
        return lambda warp, active: warp.put(
            to,
            np.where(warp.get(sources[2], np.bool_), warp.get(sources[0], of_kind), warp.get(sources[1], of_kind)),
            active,
        )
    if name == "setp":
        compare = COMPARISONS[instruction.parts[1]]
        return lambda warp, active: warp.put(to, compare(*numbers(warp)), active)
    return None


def joined(warp: Warp, names: tuple[str, ...], kind: type[Any]) -> Array:
    """Put the numbers of several registers side by side, the first lowest."""
    part = np.dtype(kind).itemsize // len(names)
    return np.stack([warp.get(name, BITS[part]) for name in names], 1).view(kind).reshape(LANES)


def split(warp: Warp, names: tuple[str, ...], value: Array, active: Array) -> None:
    """Take a number apart."""
    parts = np.ascontiguousarray(value).reshape(LANES, 1).view(BITS[value.dtype.itemsize // len(names)])
    for index, name in enumerate(names):
        warp.put(name, parts[:, index], active)


def convert(instruction: Instruction) -> Step:
    """``cvt``: numbers of one type to another."""
    to, source = instruction.operands
    into, from_ = instruction.parts[-2:]
    rounding = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.get(instruction.parts[1])
    if into == "bf16":
        return lambda warp, active: warp.put(to, bfloat16(warp.get(source, np.float32)), active)
    if from_ == "bf16":
        return lambda warp, active: warp.put(to, widened(warp.get(source, np.uint16)), active)
    kind, other = TYPES[into], TYPES[from_]

    def step(warp: Warp, active: Array) -> None:
        number = warp.get(source, other)
        warp.put(to, (rounding(number) if rounding else number).astype(kind), active)

    return step


def insert(instruction: Instruction) -> Step:
    """``bfi``: some bits of one word in the place of those of another."""
    to, source, base, first, count = instruction.operands

    def step(warp: Warp, active: Array) -> None:
        bits, word, place, length = (
            warp.get(name, np.uint32).astype(np.uint64) for name in (source, base, first, count)
        )
        mask = ((np.uint64(1) << length) - np.uint64(1)) << place
        warp.put(to, (word & ~mask | bits << place & mask).astype(np.uint32), active)

    return step


def load(instruction: Instruction) -> Step:
    """``ld``: one to four numbers side by side."""
    to, place = vector(instruction.operands[0]), instruction.operands[1]
    space, kind = instruction.parts[1], TYPES[instruction.parts[-1]]
    size = np.dtype(kind).itemsize * len(to)

    def step(warp: Warp, active: Array) -> None:
        addresses = warp.addresses(place)[active]
        if addresses.size == 0:
            return
        if space == "shared":
            data = warp.block.shared.read(warp.number, warp.threads[active], addresses, size)
        elif space == "param":
            data = warp.block.parameters[addresses[:, None] + np.arange(size)]
        else:
            check_alignment(addresses, size)
            data = np.stack([warp.block.memory.at(int(address), size) for address in addresses])
        numbers = np.zeros((LANES, len(to)), kind)
        numbers[active] = np.ascontiguousarray(data).view(kind)
        for index, name in enumerate(to):
            # A register may be wider than what is loaded.
            bits = register_kind(warp.block.kernel, name)
            number = numbers[:, index]
            warp.put(name, number if number.dtype.itemsize == np.dtype(bits).itemsize else number.astype(bits), active)

    return step


def register_kind(kernel: Kernel, name: str) -> type[Any]:
    """Return the type of a register's bits."""
    return BITS[kernel.widths[name.rstrip("0123456789")] // 8]


def store(instruction: Instruction) -> Step:
    """``st``: one to four numbers side by side."""
    place, sources = instruction.operands[0], vector(instruction.operands[1])
    space, kind = instruction.parts[1], TYPES[instruction.parts[-1]]

    def step(warp: Warp, active: Array) -> None:
        addresses = warp.addresses(place)[active]
        if addresses.size == 0:
            return
        data = np.stack([warp.get(source, kind)[active] for source in sources], 1).view(np.uint8)
        if space == "shared":
            warp.block.shared.write(warp.number, warp.threads[active], addresses, data)
            return
        check_alignment(addresses, data.shape[1])
        for address, row in zip(addresses, data, strict=True):
            warp.block.memory.at(int(address), data.shape[1])[:] = row

    return step


def load_matrices(instruction: Instruction) -> Step:
    """``ldmatrix``: four 8 × 8 matrices of 16-bit numbers, whose rows the lanes give."""
    to, place = vector(instruction.operands[0]), instruction.operands[1]
    transposed = "trans" in instruction.parts

    def step(warp: Warp, active: Array) -> None:
        warp.expect_all(active)
        rows = warp.block.shared.read(warp.number, warp.threads, warp.addresses(place), 16).view(np.uint16)
        row, column = np.arange(LANES) // 4, np.arange(LANES) % 4 * 2
        for index, name in enumerate(to):
            matrix = rows[8 * index : 8 * index + 8]
            matrix = matrix.T if transposed else matrix
            pair = np.stack([matrix[row, column], matrix[row, column + 1]], 1)
            warp.put(name, np.ascontiguousarray(pair).view(np.uint32).reshape(LANES), active)

    return step


def multiply_matrices(instruction: Instruction) -> Step:
    """``mma.m16n8k16`` of 16-bit numbers with sums in float32."""
    to, left, right, sums = (vector(operand) for operand in instruction.operands)
    kind = instruction.parts[-2]
    row, column = np.arange(LANES) // 4, np.arange(LANES) % 4 * 2

    def step(warp: Warp, active: Array) -> None:
        warp.expect_all(active)
        a, b, c = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
        for index, name in enumerate(left):
            for half, number in enumerate(halves(warp.get(name, np.uint32), kind).T):
                a[row + 8 * (index % 2), column + half + 8 * (index // 2)] = number
        for index, name in enumerate(right):
            for half, number in enumerate(halves(warp.get(name, np.uint32), kind).T):
                b[column + half + 8 * index, row] = number
        for index, name in enumerate(sums):
            c[row + 8 * (index // 2), column + index % 2] = warp.get(name, np.float32)
        product = (a @ b + c).astype(np.float32)
        for index, name in enumerate(to):
            warp.put(name, product[row + 8 * (index // 2), column + index % 2], active)

    return step


def exchange(instruction: Instruction) -> Step:
    """``shfl``: every lane reads another one's number."""
    to, source, lane = instruction.operands[0].split("|")[0], *instruction.operands[1:3]
    flipped = "bfly" in instruction.parts

    def step(warp: Warp, active: Array) -> None:
        warp.expect_all(active)
        other = warp.get(lane, np.uint32).astype(np.int64)
        other = np.arange(LANES) ^ other if flipped else other
        if "|" in instruction.operands[0]:
            warp.put(instruction.operands[0].split("|")[1], np.ones(LANES, bool), active)
        warp.put(to, warp.get(source, np.uint32)[other % LANES], active)

    return step


def control(instruction: Instruction, labels: dict[str, int]) -> Step | None:
    """Branches, ends and barriers."""

    def branch(warp: Warp, active: Array) -> None:
        warp.places[active] = labels[instruction.operands[0]]

    def end(warp: Warp, active: Array) -> None:
        warp.ended |= active

    def wait_for_block(warp: Warp, active: Array) -> None:
        warp.at_barrier |= active

    def wait_for_warp(warp: Warp, active: Array) -> None:
        warp.expect_all(active)
        warp.block.shared.pass_warp_barrier(warp.number)

    def nothing(warp: Warp, active: Array) -> None:
        pass

    steps = {"nop": nothing, "bra": branch, "ret": end, "bar.sync": wait_for_block, "bar.warp.sync": wait_for_warp}
    return steps.get(instruction.operation.removesuffix(".uni"))


def address_space(instruction: Instruction) -> Step:
    """``cvta``: between addresses of one memory and of any."""
    to, source = instruction.operands
    offset = np.uint64(SHARED_WINDOW if "shared" in instruction.parts else 0)
    if "to" in instruction.parts:
        return lambda warp, active: warp.put(to, warp.get(source, np.uint64) - offset, active)
    return lambda warp, active: warp.put(to, warp.get(source, np.uint64) + offset, active)


SPECIAL = {
    "bfi": insert,
    "cvt": convert,
    "ld": load,
    "st": store,
    "ldmatrix": load_matrices,
    "mma": multiply_matrices,
    "shfl": exchange,
    "cvta": address_space,
}


def step_of(instruction: Instruction, labels: dict[str, int]) -> Step:
    """Return what an instruction does."""
    step = control(instruction, labels)
    if step is None and instruction.parts[0] in SPECIAL:
        step = SPECIAL[instruction.parts[0]](instruction)
    if step is None and instruction.operands:
        step = simple(instruction)
    if step is None:
        raise NotImplementedError(f"ptx: {instruction.text}")
    return step


def program_of(kernel: Kernel) -> list[Step]:
    """Return what the instructions of a kernel do."""
    return [step_of(instruction, kernel.labels) for instruction in kernel.instructions]


__all__ = ["Fault", "program_of"]

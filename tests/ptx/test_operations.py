"""The interpreter itself, by kernels of a few instructions: what each computes, and that bad ones are found.

What is expected is computed by Python's integers and fractions, number by number.
"""

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from ptx.arithmetic import Unknown
from ptx.counts import Counts
from ptx.machine import Launch, run
from ptx.memory import Array, Fault, GlobalMemory
from ptx.operations import program_of
from ptx.program import kernels

REGISTERS = """
    .reg .pred %p<9>;
    .reg .b16 %rs<9>;
    .reg .b32 %r<29>;
    .reg .b64 %rd<29>;
    .reg .f32 %f<9>;
    .reg .f64 %fd<9>;
    ld.param.u64 %rd20, [test_param_0];
    ld.param.u64 %rd21, [test_param_0+8];
    mov.u32 %r20, %tid.x;
    mov.u32 %r21, %ctaid.x;
    mul.wide.u32 %rd22, %r20, 8;
    add.s64 %rd23, %rd20, %rd22;
    add.s64 %rd24, %rd21, %rd22;
"""
CELL = 8  # the bytes between numbers in memory, whatever they are


def execute(
    body: str, given: Array, *, threads: int = 32, blocks: int = 1, shared_bytes: int = 512,
    counts: Counts | None = None,
) -> Array:  # fmt: skip
    """Run a kernel, and return the cell that each thread wrote as a row of bytes.

    Its registers %r20 and %r21 have thread and block, %rd23 points to the thread's cell of what is given, which is
    words of two bytes, and %rd24 to that of the results.
    """
    text = f".visible .entry test(\n.param .align 8 .b8 test_param_0[16]\n)\n{{\n{REGISTERS}{body}\nret;\n}}\n"
    found = kernels(text)["test"]
    out = np.zeros(threads * CELL, np.uint8)
    memory = GlobalMemory()
    memory.region(given.ctypes.data, given.size, 2).written[:] = True
    memory.region(out.ctypes.data, out.size // 2, 2).writable[:] = True
    parameters = struct.pack("QQ", given.ctypes.data, out.ctypes.data)
    run(found, program_of(found), Launch((blocks, 1, 1), threads, shared_bytes, parameters), memory, counts)
    return out.reshape(-1, CELL)


REGISTER = {"16": "%rs", "32": "%r", "64": "%rd"}


def register(kind: str, number: int) -> str:
    prefix = {"f32": "%f", "f64": "%fd"}.get(kind) or REGISTER[kind[1:]]
    return f"{prefix}{number}"


def numpy_type(kind: str) -> Any:
    return np.dtype(f"{kind[0].replace('b', 'u').replace('s', 'i')}{int(kind[1:]) // 8}")


def computed(operation: str, to: str, kinds: list[str], rows: list[tuple[Any, ...]]) -> list[Any]:
    """Return what an operation makes of every row of operands, as a number of type ``to``; each thread has a row."""
    given = np.zeros((len(kinds), 32, CELL), np.uint8)
    loads = ""
    for index, (kind, column) in enumerate(zip(kinds, zip(*rows, strict=True), strict=True)):
        numbers = np.array(column, numpy_type(kind))
        given[index, : len(rows), : numbers.itemsize] = numbers[:, None].view(np.uint8)
        loads += f"ld.global.{kind} {register(kind, index + 1)}, [%rd23+{index * 32 * CELL}];\n"
    names = ", ".join([register(to, 8), *(register(kind, index + 1) for index, kind in enumerate(kinds))])
    out = execute(f"{loads}{operation} {names};\nst.global.{to} [%rd24], {register(to, 8)};", given.view(np.uint16))
    numbers = np.ascontiguousarray(out[: len(rows), : int(to[1:]) // 8]).view(numpy_type(to))
    return list(numbers[:, 0].tolist())


def wrapped(number: int, kind: str) -> int:
    """Return an integer modulo the numbers of a type."""
    bits = int(kind[1:])
    number &= (1 << bits) - 1
    return number - (1 << bits) if kind[0] == "s" and number >> bits - 1 else number


def single(number: float | Fraction) -> float:
    """Round to float32: numbers here are neither huge nor tiny."""
    fraction = Fraction(number)
    if not fraction:
        return 0.0
    unit = Fraction(2) ** (math.frexp(float(fraction))[1] - 24)
    return float(round(fraction / unit) * unit)


def quotient(x: int, y: int) -> int:
    return int(math.copysign(1, x) * math.copysign(1, y)) * (abs(x) // abs(y))


INTEGERS = [0, 1, 2, 3, 5, 31, 32, 33, 127, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 123456789]
PAIRS = [(x, y) for x in INTEGERS[::2] for y in INTEGERS[1::4]]


@pytest.mark.parametrize(
    ("operation", "kind", "expected"),
    [
        ("add.s32", "s32", lambda x, y: x + y),
        ("sub.s64", "s64", lambda x, y: x - y),
        ("mul.lo.s32", "s32", lambda x, y: x * y),
        ("mul.hi.s32", "s32", lambda x, y: x * y >> 32),
        ("mul.hi.u32", "u32", lambda x, y: x * y >> 32),
        ("div.s32", "s32", quotient),
        ("div.u64", "u64", lambda x, y: x // y),
        ("rem.s32", "s32", lambda x, y: x - quotient(x, y) * y),
        ("min.s32", "s32", min),
        ("max.u32", "u32", max),
        ("and.b32", "b32", lambda x, y: x & y),
        ("or.b64", "b64", lambda x, y: x | y),
        ("xor.b16", "b16", lambda x, y: x ^ y),
    ],
)
def test_integers(operation: str, kind: str, expected: Callable[[int, int], int]) -> None:
    rows = [(wrapped(x, kind), wrapped(-y, kind) or 7) for x, y in PAIRS]
    assert computed(operation, kind, [kind, kind], rows) == [wrapped(expected(x, y), kind) for x, y in rows]


def test_products_of_twice_the_width() -> None:
    rows = [(wrapped(x, "s32"), wrapped(-y, "s32")) for x, y in PAIRS]
    assert computed("mul.wide.s32", "s64", ["s32", "s32"], rows) == [x * y for x, y in rows]
    rows = [(x & 0xFFFF, y & 0xFFFF) for x, y in PAIRS]
    assert computed("mul.wide.u16", "u32", ["u16", "u16"], rows) == [x * y for x, y in rows]


def test_integer_multiply_add() -> None:
    rows = [(wrapped(x, "s32"), wrapped(-y, "s32"), wrapped(x ^ y, "s32")) for x, y in PAIRS]
    expected = [wrapped(x * y + z, "s32") for x, y, z in rows]
    assert computed("mad.lo.s32", "s32", ["s32", "s32", "s32"], rows) == expected


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_shifts_beyond_the_width(kind: str) -> None:
    rows = [(wrapped(-x, kind), count) for x in (1, 1000, 2**31) for count in (0, 1, 31, 32, 33, 63, 64, 100)]
    bits = f"b{kind[1:]}"
    unsigned = [(wrapped(x, bits), count) for x, count in rows]
    assert computed(f"shl.{bits}", bits, [bits, "u32"], unsigned) == [wrapped(x << n, bits) for x, n in unsigned]
    assert computed(f"shr.{kind}", kind, [kind, "u32"], rows) == [x >> count for x, count in rows]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("neg.s32", lambda x: -x), ("not.b32", lambda x: ~x), ("abs.s32", abs), ("mov.b32", lambda x: x)],
)
def test_one_integer(operation: str, expected: Callable[[int], int]) -> None:
    numbers = [wrapped(x * sign, "s32") for x in INTEGERS for sign in (1, -1)]
    assert computed(operation, "s32", ["s32"], [(x,) for x in numbers]) == [
        wrapped(expected(x), "s32") for x in numbers
    ]


FLOATS = [single(x) for x in (0.0, 1.0, -1.0, 0.1, -3.3, 1 / 3, 1e-5, 123456.7)]
FLOAT_PAIRS = [(x, y) for x in FLOATS for y in FLOATS[1::2]]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("add.f32", lambda x, y: Fraction(x) + Fraction(y)),
        ("sub.f32", lambda x, y: Fraction(x) - Fraction(y)),
        ("mul.f32", lambda x, y: Fraction(x) * Fraction(y)),
        ("div.rn.f32", lambda x, y: Fraction(x) / Fraction(y)),
        ("min.f32", min),
        ("max.f32", max),
        ("copysign.f32", lambda x, y: math.copysign(y, x)),
    ],
)
def test_floats(operation: str, expected: Callable[[float, float], Any]) -> None:
    found = computed(operation, "f32", ["f32", "f32"], FLOAT_PAIRS)
    assert found == [single(expected(x, y)) for x, y in FLOAT_PAIRS]


def test_fused_multiply_add_rounds_once() -> None:
    rows = [(x, y, -single(x * y)) for x, y in FLOAT_PAIRS]
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in rows]
    assert any(exact)
    assert computed("fma.rn.f32", "f32", ["f32"] * 3, rows) == [single(number) for number in exact]
    # Towards −∞: the largest float32 number that is no larger.
    rows = [(x, y, 1e-3) for x, y in FLOAT_PAIRS]
    for (x, y, z), found in zip(rows, computed("fma.rm.f32", "f32", ["f32"] * 3, rows), strict=True):
        exact_sum = Fraction(x) * Fraction(y) + Fraction(float(np.float32(z)))
        assert Fraction(found) <= exact_sum < Fraction(float(np.nextafter(np.float32(found), np.float32(np.inf))))


def test_float64() -> None:
    rows = [(x, y, -(x * y)) for x in (0.1, 1 / 3, 1e5) for y in (0.7, -1.3)]
    expected = [float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in rows]
    assert computed("fma.rn.f64", "f64", ["f64"] * 3, rows) == pytest.approx(expected, rel=1e-3, abs=0)
    assert computed("div.rn.f64", "f64", ["f64"] * 2, [row[:2] for row in rows]) == [x / y for x, y, _ in rows]


def test_power_of_two_flushes_what_is_too_small() -> None:
    found = computed("ex2.approx.ftz.f32", "f32", ["f32"], [(x,) for x in (0.0, 3.0, -126.0, -126.5, -150.0, np.inf)])
    assert found == [1.0, 8.0, 2.0**-126, 0.0, 0.0, np.inf]


def test_minimum_of_a_number_and_nan_is_the_number() -> None:
    assert computed("min.f32", "f32", ["f32", "f32"], [(np.nan, 1.0), (2.0, np.nan)]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [("eq", "010 0"), ("ne", "101 0"), ("lt", "100 0"), ("le", "110 0"), ("gt", "001 0"), ("ge", "011 0"),
     ("equ", "010 1"), ("neu", "101 1"), ("ltu", "100 1"), ("leu", "110 1"), ("gtu", "001 1"), ("geu", "011 1"),
     ("num", "111 0"), ("nan", "000 1")],
)  # fmt: skip
def test_comparisons(comparison: str, expected: str) -> None:
    """Of 1, 2 and 3 with 2, and of NaN with it."""
    given = np.zeros((32, CELL), np.uint8)
    numbers = np.array([1, 2, 3, np.nan], np.float32)
    given[:4, :4] = numbers[:, None].view(np.uint8)
    out = execute(
        f"ld.global.f32 %f1, [%rd23]; setp.{comparison}.f32 %p1, %f1, 0f40000000; selp.u32 %r1, 1, 0, %p1;"
        "st.global.u32 [%rd24], %r1;",
        given.view(np.uint16),
    )
    assert "".join(map(str, out[:3, 0])) + f" {out[3, 0]}" == expected


@pytest.mark.parametrize(
    ("operation", "to", "kind", "cases"),
    [
        ("cvt.s64.s32", "s64", "s32", {-5: -5}),
        ("cvt.u64.u32", "u64", "u32", {2**32 - 5: 2**32 - 5}),
        ("cvt.u32.u64", "u32", "u64", {2**40 + 7: 7}),
        ("cvt.rn.f32.s32", "f32", "s32", {2**24 + 1: 2.0**24, -3: -3.0}),
        ("cvt.rzi.s32.f32", "s32", "f32", {-1.7: -1, 3e10: 2**31 - 1, -3e10: -(2**31), np.nan: 0}),
        ("cvt.rni.f32.f32", "f32", "f32", {0.5: 0.0, 1.5: 2.0, -2.6: -3.0}),
        ("cvt.sat.f32.f32", "f32", "f32", {-1.0: 0.0, 0.25: 0.25, 7.0: 1.0, np.nan: 0.0}),
        ("cvt.rn.f32.f64", "f32", "f64", {1 / 3: single(1 / 3)}),
        ("cvt.f64.f32", "f64", "f32", {0.5: 0.5}),
    ],
)
def test_conversions(operation: str, to: str, kind: str, cases: dict[Any, Any]) -> None:
    assert computed(operation, to, [kind], [(number,) for number in cases]) == list(cases.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_conversions_round_as_pytorch_does(dtype: torch.dtype) -> None:
    name = {torch.float16: "f16", torch.bfloat16: "bf16"}[dtype]
    numbers = torch.tensor([1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-9, 1 + 2**-11, 1 / 3, 70000.0, 1e-6, -0.0, torch.inf])
    rounded = numbers.to(dtype)
    patterns = [bits & 0xFFFF for bits in rounded.view(torch.int16).tolist()]
    assert computed(f"cvt.rn.{name}.f32", "b16", ["f32"], [(x,) for x in numbers.tolist()]) == patterns
    assert computed(f"cvt.f32.{name}", "f32", ["b16"], [(x,) for x in patterns]) == rounded.float().tolist()


def test_bytes_in_another_order() -> None:
    rows = [(0x33221100, 0x77665584, selector) for selector in (0x3210, 0x7654, 0x5410, 0x0C04)]
    expected = [0x33221100, 0x77665584, 0x55841100, 0x00FF0084]
    assert computed("prmt.b32", "b32", ["b32"] * 3, rows) == expected


def test_bits_of_one_word_in_another() -> None:
    rows = [(5, 0xFFFF0000, 1, 1), (0b1101, 0, 4, 3), (1, 0xFFFFFFFF, 3, 29)]
    assert computed("bfi.b32", "b32", ["b32"] * 4, rows) == [0xFFFF0002, 0b1010000, 0xF]


NOTHING = np.zeros(4 * 32, np.uint16)


def words(body: str, given: Array = NOTHING, **options: Any) -> list[int]:
    """Return the word that each thread leaves in %r1."""
    out = execute(f"{body}\nst.global.u32 [%rd24], %r1;", given, **options)
    return list(np.ascontiguousarray(out[:, :4]).view(np.uint32)[:, 0].tolist())


def test_numbers_side_by_side() -> None:
    body = "mov.u16 %rs1, 7; cvt.u16.u32 %rs2, %r20; mov.b32 %r1, {%rs1, %rs2};"
    assert words(body) == [7 | thread << 16 for thread in range(32)]
    assert words(f"{body} mov.b32 {{%rs3, %rs4}}, %r1; cvt.u32.u16 %r1, %rs4;") == list(range(32))


def test_exchanges() -> None:
    assert words("shfl.sync.bfly.b32 %r1|%p1, %r20, 12, 31, -1;") == [lane ^ 12 for lane in range(32)]
    assert words("and.b32 %r2, %r20, 24; shfl.sync.idx.b32 %r1|%p1, %r20, %r2, 31, -1;") == [
        lane & 24 for lane in range(32)
    ]


# Row t of 32 has the numbers 8t, 8t + 1, …, 8t + 7.
ROWS = """
    shl.b32 %r2, %r20, 4;
    mad.lo.s32 %r3, %r20, 524296, 65536;
    add.s32 %r4, %r3, 131074;
    add.s32 %r5, %r3, 262148;
    add.s32 %r6, %r3, 393222;
    st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6};
    bar.warp.sync -1;
"""


@pytest.mark.parametrize("matrix", range(4))
def test_matrices_from_shared_memory(matrix: int) -> None:
    names = ["%r7", "%r8", "%r9", "%r10"]
    names[matrix] = "%r1"
    for transposed in ("", ".trans"):
        operation = f"ldmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 {{{','.join(names)}}}, [%r2];"
        numbers = np.arange(64 * matrix, 64 * matrix + 64).reshape(8, 8)
        numbers = numbers.T if transposed else numbers
        expected = [int(low | high << 16) for low, high in numbers.reshape(32, 2)]
        assert words(ROWS + operation) == expected


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_products_of_matrices(kind: str) -> None:
    """The operands are spread over the lanes as src/cuda/platform/device.cuh says."""
    random = np.random.default_rng(0)
    a, b, c = (random.integers(-8, 8, shape) for shape in ((16, 16), (16, 8), (16, 8)))
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]

    def packed(first: Array, second: Array) -> Array:
        low, high = (torch.from_numpy(x).to(dtype).view(torch.int16).numpy().view(np.uint16) for x in (first, second))
        return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)

    g, t = np.arange(32) // 4, np.arange(32) % 4
    cells = np.zeros((10, 32, 2), np.uint32)
    for word, (row, column) in enumerate([(g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)]):
        cells[word, :, 0] = packed(a[row, column], a[row, column + 1])
    for word, row in enumerate([2 * t, 2 * t + 8]):
        cells[4 + word, :, 0] = packed(b[row, g], b[row + 1, g])
    places = [(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]
    for word, (row, column) in enumerate(places):
        cells[6 + word, :, 0] = c[row, column].astype(np.float32).view(np.uint32)
    loads = "".join(f"ld.global.u32 %r{index + 1}, [%rd23+{index * 256}];\n" for index in range(10))
    loads += "".join(f"mov.b32 %f{index + 1}, %r{index + 7};\n" for index in range(4))
    for word, (row, column) in enumerate(places):
        product = (
            f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{%f1,%f2,%f3,%f4}}, {{%r1,%r2,%r3,%r4}}, "
            f"{{%r5,%r6}}, {{%f1,%f2,%f3,%f4}};\ncvt.rzi.s32.f32 %r1, %f{word + 1};"
        )
        found = np.array(words(loads + product, cells.view(np.uint16)), np.uint32).view(np.int32)
        assert (found == (a @ b + c)[row, column]).all()


def test_threads_part_and_meet_again() -> None:
    """Each turns as often as its number says; all take part in what follows."""
    body = """
        mov.u32 %r1, 0;
        mov.u32 %r2, 0;
        $turn:
        setp.ge.u32 %p1, %r2, %r20;
        @%p1 bra $done;
        add.u32 %r2, %r2, 1;
        add.u32 %r1, %r1, %r2;
        bra.uni $turn;
        $done:
        shfl.sync.bfly.b32 %r1|%p2, %r1, 1, 31, -1;
    """
    assert words(body) == [n * (n + 1) // 2 for n in (lane ^ 1 for lane in range(32))]


OWN = "shl.b32 %r2, %r20, 2; st.shared.u32 [%r2], %r20;"
NEIGHBOUR = "xor.b32 %r3, %r2, 4; ld.shared.u32 %r1, [%r3];"
OTHER_WARP = "xor.b32 %r3, %r2, 128; ld.shared.u32 %r1, [%r3];"


def test_what_barriers_order() -> None:
    assert words(f"{OWN} bar.warp.sync -1; {NEIGHBOUR}") == [lane ^ 1 for lane in range(32)]
    assert words(f"{OWN} bar.sync 0; {OTHER_WARP}", threads=64) == [thread ^ 32 for thread in range(64)]
    # Each block has shared memory of its own.
    first_only = "setp.ne.u32 %p1, %r21, 0; @%p1 ret;"
    assert words(f"{OWN} bar.sync 0; {NEIGHBOUR} {first_only}", blocks=2) == [lane ^ 1 for lane in range(32)]
    with pytest.raises(Fault, match="two warps write to one place"):
        words(f"{OWN} bar.sync 0; {NEIGHBOUR}", blocks=2)


@pytest.mark.parametrize(
    ("body", "threads", "message"),
    [
        (f"{OWN} {NEIGHBOUR}", 32, "reads what another thread has just written"),
        (f"{OWN} bar.warp.sync -1; {OTHER_WARP}", 64, "reads what another thread has just written"),
        (f"{OWN} bar.warp.sync -1; {NEIGHBOUR} st.shared.u32 [%r2], %r1;", 32, "may still have to read"),
        (f"{OWN} bar.sync 0; {OTHER_WARP} bar.warp.sync -1; {OWN}", 64, "may still have to read"),
        (f"{OWN} xor.b32 %r3, %r2, 4; st.shared.u32 [%r3], %r20;", 32, "overwrites what another thread"),
        ("and.b32 %r2, %r20, 28; st.shared.u32 [%r2], %r20;", 32, "two lanes write to one place"),
        ("and.b32 %r2, %r20, 28; st.shared.u32 [%r2], 5;", 64, "two warps write to one place"),
        ("shl.b32 %r2, %r20, 2; ld.shared.u32 %r1, [%r2];", 32, "never written"),
        ("shl.b32 %r2, %r20, 5; st.shared.u32 [%r2], %r20;", 32, "shared memory has 512 bytes"),
        ("shl.b32 %r2, %r20, 2; st.shared.v2.u32 [%r2], {%r20, %r20};", 32, "misaligned"),
        ("ld.global.v2.u32 {%r1, %r2}, [%rd23+4];", 32, "misaligned"),
        ("ld.global.u32 %r1, [%rd23+8];", 32, "no tensor is there"),
        ("ld.global.u32 %r1, [%rd24];", 32, "never written"),
        ("st.global.u32 [%rd23], %r20;", 32, "may only read"),
        ("st.global.u32 [%rd24], 1; ld.global.u32 %r1, [%rd21];", 32, "reads what another thread has just written"),
        ("setp.lt.u32 %p1, %r20, 9; @%p1 bar.warp.sync -1;", 32, "only 9 lanes"),
        ("setp.lt.u32 %p1, %r20, 9; @%p1 bar.sync 0;", 32, "only 9 lanes"),
        ("setp.lt.u32 %p1, %r20, 9; @%p1 shfl.sync.bfly.b32 %r1|%p2, %r20, 1, 31, -1;", 32, "only 9 lanes"),
        ("setp.lt.u32 %p1, %r20, 32; @%p1 ret; bar.sync 0;", 64, "threads that have ended"),
        ("setp.lt.u32 %p1, %r20, 32; @%p1 bra $x; bar.sync 0; bra $y; $x: bar.sync 0; $y:", 64, "different barriers"),
        ("add.u32 %r1, %r3, %r4;", 32, "before it is written"),
    ],
)  # fmt: skip
def test_faults(body: str, threads: int, message: str) -> None:
    with pytest.raises(Fault, match=message):
        words(f"mov.u32 %r1, 0; {body}", np.zeros(threads * 4, np.uint16), threads=threads)


def test_lanes_may_write_the_same_to_one_place() -> None:
    assert words("and.b32 %r2, %r20, 28; st.shared.u32 [%r2], 5; mov.u32 %r1, 3;") == [3] * 32


def test_padding_may_be_loaded_if_nothing_reads_it() -> None:
    own = "shl.b32 %r2, %r20, 3; st.shared.u32 [%r2], %r20; ld.shared.v2.u32 {%r1, %r3}, [%r2];"
    assert words(own) == list(range(32))
    with pytest.raises(Fault, match="never written"):
        words(f"{own} add.u32 %r1, %r1, %r3;")


@pytest.mark.parametrize(
    "text",
    [
        "add.sat.s32 %r1, %r20, %r20;", "mul.rz.f32 %f1, %f2, %f3;", "fma.rz.f32 %f1, %f2, %f3, %f4;",
        "mad.hi.s32 %r1, %r20, %r20, %r20;", "ex2.approx.f32 %f1, %f2;", "cvt.rz.f16.f32 %rs1, %f1;",
        "ld.volatile.global.u32 %r1, [%rd23];", "ld.u32 %r1, [%rd23];", "st.local.u32 [%rd23], %r1;",
        "atom.global.add.u32 %r1, [%rd24], 1;", "bar.sync 1;", "bar.warp.sync 255;", "vote.sync.any.pred %p1, %p2, -1;",
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1,%r2}, [%r20];", "setp.lt.and.s32 %p1, %r1, %r2, %p2;",
    ],
)  # fmt: skip
def test_nothing_unknown_is_passed_over(text: str) -> None:
    with pytest.raises(Unknown):
        execute(text, NOTHING)


def test_arguments_of_another_size() -> None:
    found = kernels(".visible .entry test(\n.param .u64 test_param_0[16]\n)\n{\nret;\n}\n")["test"]
    with pytest.raises(Fault, match="takes 16 bytes and is given 8"):
        run(found, program_of(found), Launch((1, 1, 1), 32, 0, bytes(8)), GlobalMemory())


@pytest.mark.parametrize(
    ("access", "wavefronts"),
    [
        ("shl.b32 %r2, %r20, 2; st.shared.u32 [%r2], 1;", 1),
        ("shl.b32 %r2, %r20, 3; st.shared.u32 [%r2], 1;", 2),
        ("shl.b32 %r2, %r20, 7; st.shared.u32 [%r2], 1;", 32),
        ("mul.lo.s32 %r2, %r20, 132; st.shared.u32 [%r2], 1;", 1),
        ("shl.b32 %r2, %r20, 1; st.shared.u16 [%r2], 1;", 1),
        ("shl.b32 %r2, %r20, 3; st.shared.v2.u32 [%r2], {%r20, %r20};", 2),
        ("shl.b32 %r2, %r20, 4; st.shared.v2.u32 [%r2], {%r20, %r20};", 4),
        ("shl.b32 %r2, %r20, 4; st.shared.v4.u32 [%r2], {%r20, %r20, %r20, %r20};", 4),
        ("mov.u32 %r2, 0; st.shared.u32 [%r2], 1;", 1),
    ],
)
def test_wavefronts(access: str, wavefronts: int) -> None:
    counts = Counts()
    execute(access, NOTHING, shared_bytes=8192, counts=counts)
    assert counts.wavefronts == wavefronts


def test_sectors_lines_and_instructions() -> None:
    counts = Counts()
    # 64 threads read 8 bytes each, 512 bytes in a row; then all read the first word; half of them write.
    given = np.zeros(64 * 4 + 64, np.uint16)
    first = -given.ctypes.data % 128 // 2
    body = "ld.global.v2.u32 {%r1, %r2}, [%rd23]; ld.global.u32 %r3, [%rd20]; setp.lt.u32 %p1, %r20, 32;"
    execute(
        f"{body} @%p1 bra $end; mul.f32 %f1, 0f3F800000, 0f3F800000; $end:", given[first:], threads=64, counts=counts
    )
    assert counts.sectors == 512 // 32 + 2
    assert counts.tags == 512 // 128 + 2
    assert counts.instructions["float32"] == 1
    assert counts.instructions["loads and stores"] == 2 * 4  # of the two warps, with those of the arguments

"""Calls of ghost_head, their sizes and options, and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from hypothesis import strategies as st
from ops import local_cases
from ops.cases import HALVES, Case, Shape, pair
from ops.local_cases import Local
from ops.random_sizes import sizes_and_options
from ops.spec import BadCall, Change, Count, be, drop, shape, squeeze, to, unsqueeze


@dataclass(frozen=True)
class GhostHead(Case):
    """One call; ``mul`` and ``add`` are "none", "shared" or "sample" (one matrix per sample)."""

    op = "ghost_head"
    images = ("value", "attn")
    matrices = ("ghost_mul", "ghost_add")

    kernel_size: Any = 3
    dilation: Any = 1
    stride: Any = 1
    border: str = "zeros"
    window_stride: Any = 1
    causal: tuple[int, int] = (0, 0)
    mul: str = "shared"
    add: str = "shared"

    @property
    def options(self) -> dict[str, Any]:
        options = {"kernel_size": self.kernel_size, "dilation": self.dilation, "stride": self.stride}
        if self.border != "zeros":
            options |= {"border": self.border, "window_stride": self.window_stride, "causal": self.causal}
        return options

    @property
    def shapes(self) -> dict[str, Shape | None]:
        taps = pair(self.kernel_size)
        matrix = {"none": None, "shared": (self.channels, *taps), "sample": (self.batch, self.channels, *taps)}
        return {
            "value": (self.batch, self.channels, self.height, self.width),
            "attn": (self.batch, self.heads * taps[0] * taps[1], *self.out_shape[2:]),
            "ghost_mul": matrix[self.mul],
            "ghost_add": matrix[self.add],
        }

    @property
    def out_shape(self) -> Shape:
        down, across = pair(self.stride)
        return (self.batch, self.channels, self.height // down, self.width // across)

    def _others(self) -> str:
        bordered = f"-{self.border}-w{self.window_stride}-causal{self.causal}" if self.border != "zeros" else ""
        return f"{bordered}-mul_{self.mul}-add_{self.add}"


def bordered(calls: Sequence[Local], stride: int = 1) -> list[GhostHead]:
    """Calls with the neighbourhoods of others, every second of them without matrices."""
    names = ("batch", "channels", "heads", "height", "width")
    names += ("kernel_size", "dilation", "border", "window_stride", "causal")
    matrices = [("none", "none"), ("shared", "shared"), ("none", "none"), ("sample", "none"), ("none", "none")]
    return [
        GhostHead(**{name: getattr(call, name) for name in names}, stride=stride, mul=mul, add=add)
        for call, (mul, add) in zip(calls, cycle([*matrices, ("none", "sample")]))
    ]


SMALL = GhostHead(channels=4, height=4, width=3, add="sample")
OPTIONS = [
    SMALL,
    GhostHead(channels=2, height=5, width=4, kernel_size=5, dilation=2, stride=2, mul="sample"),
    GhostHead(channels=2, height=4, width=3, mul="none", add="none"),
    GhostHead(channels=2, height=4, width=3, mul="none"),
    GhostHead(batch=1, channels=2, heads=1, height=3, width=4, add="none", kernel_size=7),
    GhostHead(batch=1, channels=2, height=4, width=6, kernel_size=(3, 2), dilation=(1, 2), border="shift"),
    GhostHead(batch=1, channels=2, height=4, width=5, stride=(2, 1), border="circular", mul="none", add="none"),
    GhostHead(batch=1, channels=2, height=3, width=5, border="shift", window_stride=(1, 2), causal=(1, 0), mul="none"),
    GhostHead(batch=1, channels=2, height=3, width=5, border="shift", causal=(1, 1), mul="none", add="none"),
]
SIZES = [
    GhostHead(kernel_size=1),
    GhostHead(kernel_size=1, stride=2, heads=6),
    GhostHead(),
    GhostHead(channels=12, heads=3, kernel_size=5, height=7, width=9),
    GhostHead(channels=8, kernel_size=7, height=11, width=8),
    GhostHead(kernel_size=9, height=10, width=12),
    GhostHead(kernel_size=11, height=13, width=9),
    GhostHead(kernel_size=13, batch=1, height=15, width=14),
    GhostHead(kernel_size=5, dilation=2, height=9, width=10),
    GhostHead(kernel_size=3, dilation=3),
    GhostHead(kernel_size=7, dilation=3, height=13, width=12),
    GhostHead(kernel_size=7, dilation=50),
    GhostHead(dilation=8, height=6, width=13),
    GhostHead(stride=2),
    GhostHead(stride=3, height=10, width=11),
    GhostHead(kernel_size=7, stride=2, height=13, width=9),
    GhostHead(kernel_size=5, stride=2, dilation=2, height=9, width=12),
    GhostHead(kernel_size=5, stride=3, dilation=3, height=11, width=9),
    GhostHead(kernel_size=7, height=2, width=3),
    GhostHead(kernel_size=7, height=1, width=1),
    GhostHead(kernel_size=5, height=1, width=37),
    GhostHead(kernel_size=5, height=37, width=1),
    GhostHead(kernel_size=13, stride=2, height=3, width=2),
    GhostHead(channels=1, heads=1, width=13),
    GhostHead(channels=5, heads=1, kernel_size=5),
    GhostHead(channels=5, heads=5, width=16),
    GhostHead(channels=17, heads=1, width=17),
    GhostHead(channels=33, heads=3, width=5),
    GhostHead(channels=33, heads=33, kernel_size=5, width=9),
    GhostHead(channels=40, heads=5, width=19),
    GhostHead(channels=40, heads=1, kernel_size=7, width=11),
    GhostHead(channels=64, heads=2, kernel_size=7, batch=1, width=15),
    GhostHead(channels=96, heads=3, kernel_size=7, batch=1, height=14, width=14),
    GhostHead(channels=131, heads=1, width=4),
    GhostHead(batch=1, channels=17, heads=17, kernel_size=5, height=19, width=61),
    GhostHead(batch=2, channels=14, heads=2, kernel_size=7, dilation=3, height=21, width=59),
    GhostHead(batch=1, channels=40, heads=1, kernel_size=5, dilation=2, stride=2, height=37, width=63),
    GhostHead(batch=2, channels=96, heads=3, kernel_size=7, height=28, width=28),
    GhostHead(batch=1),
    GhostHead(batch=5, channels=8, heads=4, height=3, width=31),
    GhostHead(batch=2, channels=8, height=33, width=30, mul="sample", add="sample"),
]
MATRICES = [
    GhostHead(channels=20, heads=heads, kernel_size=kernel_size, width=9, stride=stride, mul=mul, add=add)
    for mul in ("none", "shared", "sample")
    for add in ("none", "shared", "sample")
    for heads, kernel_size, stride in ((2, 7, 1), (20, 3, 2))
]
BORDERS = [
    *bordered(local_cases.sizes(Local)),
    *bordered([call for call in local_cases.sizes(Local) if call.height * call.width < 100][::3], stride=2),
    GhostHead(stride=(2, 1), height=7, width=9),
    GhostHead(kernel_size=(5, 2), stride=(2, 3), dilation=(2, 1), height=11, width=12, border="circular", mul="none"),
    GhostHead(
        kernel_size=(3, 5), stride=(3, 2), window_stride=(2, 5), causal=(0, 1), border="shift", height=8, width=9
    ),
    GhostHead(channels=40, heads=2, dilation=(1, 9), mul="none", add="none"),
]
EMPTY = [
    GhostHead(batch=0),
    GhostHead(batch=0, border="shift", mul="none", add="none"),
    GhostHead(height=2, stride=(3, 1), border="circular"),
    GhostHead(batch=0, mul="sample", add="sample"),
    GhostHead(channels=0),
    GhostHead(height=2, stride=3),
    GhostHead(width=1, stride=2, kernel_size=7, mul="none"),
]
EDGES = [
    GhostHead(channels=8),
    GhostHead(mul="none", add="none", kernel_size=5),
    GhostHead(mul="none", kernel_size=5),
    GhostHead(add="sample", kernel_size=5),
    GhostHead(mul="sample", add="none", stride=2),
    GhostHead(channels=1, heads=1),
    GhostHead(channels=5, heads=5, kernel_size=1),
    GhostHead(height=1, width=1),
    GhostHead(height=1, width=9),
    GhostHead(batch=1, height=3, width=2, stride=2),
    GhostHead(batch=0),
    GhostHead(height=2, stride=3),
    GhostHead(kernel_size=(2, 5), border="shift", mul="none", add="none"),
    GhostHead(kernel_size=(2, 5), stride=(2, 1), add="sample"),
    GhostHead(height=1, width=9, border="circular", add="none"),
]
# CUDA: by float32 sums and by tensor cores (16-bit maps without mul: the gather up to K = 9, its gradients up to 7), of
# one block of a head's channels and of two; any K and stride; and more tiles than sums over pixels have parts, 16.
KERNELS = [
    GhostHead(batch=2, channels=24, heads=3, kernel_size=7, height=23, width=19),
    GhostHead(batch=1, channels=33, heads=3, kernel_size=3, height=31, width=29, stride=2),
    GhostHead(batch=3, channels=8, heads=8, kernel_size=5, height=9, width=9, mul="sample", add="sample"),
    GhostHead(batch=1, channels=3, heads=1, kernel_size=5, height=40, width=37, mul="none"),
    GhostHead(batch=2, channels=80, heads=2, kernel_size=3, height=18, width=21, dilation=2, mul="none"),
    GhostHead(batch=1, channels=36, heads=1, kernel_size=9, height=19, width=18, mul="none"),
    GhostHead(batch=1, channels=40, heads=1, kernel_size=5, height=17, width=19, add="none"),
    GhostHead(batch=20, height=5, width=9),
    GhostHead(batch=10, kernel_size=5, height=5, width=9, dilation=2, mul="none"),
    *bordered(local_cases.kernels(Local)),
    GhostHead(batch=20, kernel_size=(3, 4), height=7, width=11, border="shift", causal=(0, 1)),
]
VECTORS = [
    GhostHead(),
    GhostHead(channels=40, heads=5, kernel_size=7, width=19),
    GhostHead(channels=64, heads=2, kernel_size=7, height=9, width=21, mul="sample"),
    GhostHead(channels=33, heads=3, kernel_size=5, width=17, stride=2, dilation=2),
    GhostHead(channels=131, heads=1, kernel_size=3, height=3, width=35, mul="none"),
    GhostHead(channels=7, heads=7, kernel_size=13, height=5, width=4, add="none"),
    GhostHead(channels=5, heads=1, kernel_size=1, stride=3),
    *bordered(local_cases.vectors(Local)),
]
LAID_OUT = [
    (GhostHead(channels=36, heads=3, height=5, width=6), torch.float32),
    (GhostHead(channels=36, heads=3, height=5, width=6), torch.bfloat16),
    (GhostHead(channels=24, heads=3, height=5, width=6, mul="none"), torch.bfloat16),
    (GhostHead(channels=8, kernel_size=7, height=11, width=8), torch.float32),
    (GhostHead(channels=40, heads=5, width=19, mul="none"), torch.float16),
    (GhostHead(stride=3, height=10, width=11), torch.float32),
    (GhostHead(channels=36, heads=3, height=5, width=6, border="shift"), torch.float32),
    (GhostHead(channels=36, heads=1, height=5, width=6, border="circular", mul="none", add="none"), torch.float32),
    (GhostHead(channels=24, heads=3, height=5, width=6, border="shift", mul="none", add="none"), torch.bfloat16),
]
COMPILED = [
    GhostHead(channels=8, kernel_size=5),
    GhostHead(channels=8, stride=2, dilation=2, mul="none", add="sample"),
    GhostHead(channels=8, heads=4, kernel_size=(3, 5), border="shift", mul="none", add="none"),
    GhostHead(channels=8, heads=4, stride=(1, 2), border="circular"),
]

PLAIN = GhostHead(channels=6, heads=2, height=5, width=7)
SAMPLE = replace(PLAIN, mul="sample", add="sample")
SHIFTED = replace(PLAIN, border="shift")


def bad(name: str, words: str, case: GhostHead = PLAIN, **changes: Change) -> BadCall:
    return BadCall(name, words, case, changes)


BAD_CALLS = [
    bad("value_3d", "value 3", value=squeeze),
    bad("value_5d", "value 5", value=unsqueeze),
    bad("value_scalar", "value 0", value=shape()),
    bad("value_no_rows", "value 0", value=shape(2, 6, 0, 7), attn=shape(2, 18, 0, 7)),
    bad("value_no_columns", "value 0", value=shape(2, 6, 5, 0), attn=shape(2, 18, 5, 0)),
    bad("attn_3d", "attn 3", attn=squeeze),
    bad("attn_5d", "attn 5", attn=unsqueeze),
    bad("attn_channels", "attn 17 9", attn=drop(1)),
    bad("attn_no_channels", "attn 0", attn=lambda t: t[:, :0]),
    bad("heads_do_not_divide", "attn 6 4", attn=shape(2, 36, 5, 7)),
    bad("more_heads_than_channels", "attn 6 12", attn=shape(2, 108, 5, 7)),
    bad("attn_batch", "attn 1 2", attn=drop(0)),
    bad("attn_broadcast_batch", "attn 0 2", attn=lambda t: t[:0]),
    bad("attn_height", "attn 4 5", attn=drop(2)),
    bad("attn_width", "attn 6 7", attn=drop(3)),
    bad("attn_of_stride_1", "attn 5 2", stride=be(2)),
    bad("attn_rounded_up", "attn 3 2", attn=shape(2, 18, 3, 4), stride=be(2)),
    bad("kernel_size_zero", "kernel_size 0", kernel_size=be(0)),
    bad("kernel_size_negative", "kernel_size -3", kernel_size=be(-3)),
    bad("kernel_size_zero_of_two", "kernel_size 3 0", kernel_size=be([3, 0])),
    bad("attn_of_unequal_sizes", "attn 18 15", kernel_size=be([3, 5])),
    bad("kernel_size_overflows", "kernel_size 9223372036854775807", kernel_size=be(2**63 - 1)),
    bad("kernel_size_of_another", "attn 18 25", kernel_size=be(5)),
    bad("dilation_zero", "dilation 0", dilation=be(0)),
    bad("dilation_negative", "dilation -2", dilation=be(-2)),
    bad("stride_zero", "stride 0", stride=be(0)),
    bad("stride_zero_of_two", "stride 1 0", stride=be([1, 0])),
    bad("border_unknown", "border reflect", SHIFTED, border=be("reflect")),
    bad("window_stride_zero", "window_stride 0", SHIFTED, window_stride=be([0, 1])),
    bad("window_stride_large", "window_stride 4 3", SHIFTED, window_stride=be([1, 4])),
    bad("window_stride_zeros", "window_stride shift circular", replace(PLAIN, border="circular"), window_stride=be(2)),
    bad("causal_zeros", "causal shift circular", replace(PLAIN, border="circular"), causal=be([1, 0])),
    bad("causal_two", "causal 2", SHIFTED, causal=be([0, 2])),
    bad("shift_too_large", "kernel_size height 5", SHIFTED, kernel_size=be([7, 3])),
    bad("shift_dilated_too_far", "dilation width 7", SHIFTED, dilation=be([1, 3])),
    bad("stride_negative", "stride -1", stride=be(-1)),
    bad("value_int", "value int64", value=to(torch.int64)),
    bad("value_bool", "value bool", value=to(torch.bool)),
    bad("value_complex", "value complex64", value=to(torch.complex64)),
    bad("attn_int", "attn int32", attn=to(torch.int32)),
    bad("attn_double", "attn float64", attn=to(torch.float64)),
    bad("attn_of_the_other_half", "attn bfloat16", value=to(HALVES[0]), attn=to(HALVES[1])),
    bad("mul_double", "ghost_mul float64", ghost_mul=to(torch.float64)),
    bad("mul_half_beside_float", "ghost_mul float16", ghost_mul=to(torch.float16)),
    bad("add_int", "ghost_add int64", ghost_add=to(torch.int64)),
    bad(
        "add_of_the_other_half",
        "ghost_add float16",
        value=to(HALVES[1]),
        attn=to(HALVES[1]),
        ghost_mul=to(HALVES[1]),
        ghost_add=to(HALVES[0]),
    ),
    bad("mul_channels", "ghost_mul 5 6", ghost_mul=drop(0)),
    bad("mul_per_head", "ghost_mul 2 6", ghost_mul=shape(2, 3, 3)),
    bad("mul_kernel", "ghost_mul 5 3", ghost_mul=shape(6, 5, 5)),
    bad("mul_2d", "ghost_mul", ghost_mul=shape(6, 9)),
    bad("mul_transposed", "ghost_mul", ghost_mul=shape(3, 3, 6)),
    bad("mul_batch", "ghost_mul 3 2", case=SAMPLE, ghost_mul=shape(3, 6, 3, 3)),
    bad("mul_5d", "ghost_mul", case=SAMPLE, ghost_mul=unsqueeze),
    bad("mul_empty", "ghost_mul 0", ghost_mul=shape(0)),
    bad("add_channels", "ghost_add 5 6", ghost_add=drop(0)),
    bad("add_kernel", "ghost_add 2 3", ghost_add=drop(2)),
    bad("add_batch", "ghost_add 1 2", case=SAMPLE, ghost_add=drop(0)),
    bad("value_on_meta", "meta cpu", value=to("meta")),
    bad("attn_on_meta", "attn meta cpu", attn=to("meta")),
    bad("mul_on_meta", "ghost_mul meta cpu", ghost_mul=to("meta")),
    bad("add_on_meta", "ghost_add meta cpu", ghost_add=to("meta")),
]
BAD_BACKWARD_CALLS = [
    bad("grad_3d", "grad", grad=squeeze),
    bad("grad_batch", "grad 1 2", grad=drop(0)),
    bad("grad_channels", "grad 5 6", grad=drop(1)),
    bad("grad_height", "grad 4 5", grad=drop(2)),
    bad("grad_width", "grad 6 7", grad=drop(3)),
    bad("grad_double", "grad float64", grad=to(torch.float64)),
    bad("grad_on_meta", "grad meta cpu", grad=to("meta")),
]


def counts() -> list[Count]:
    """Per tap, channel and output pixel: of the result, of all gradients, of one."""
    rows = []
    for given, forward, backward in (("both", 2, 2 + 4), ("mul", 2, 2 + 3), ("add", 2, 2 + 2), ("none", 1, 1 + 1)):
        mul, add = ("shared" if given in ("both", name) else "none" for name in ("mul", "add"))
        for stride in (1, 2):
            case = GhostHead(channels=6, heads=3, height=4, width=5, stride=stride, mul=mul, add=add)
            taps = 9 * case.batch * case.channels * (4 // stride) * (5 // stride)
            rows += [Count(case, forward * taps), Count(case, backward * taps, tuple(case.given))]
    taps = 9 * 2 * 6 * 5 * 7
    both, add, none = PLAIN, replace(PLAIN, mul="none"), replace(PLAIN, mul="none", add="none")
    rows += [Count(both, 2 * taps, (name,)) for name in ("value", "attn", "ghost_mul")]
    sized = GhostHead(channels=6, heads=3, kernel_size=(2, 5), height=4, width=7, stride=(1, 2), border="shift")
    rows += [Count(sized, 2 * 10 * 2 * 6 * 4 * 3), Count(sized, (2 + 4) * 10 * 2 * 6 * 4 * 3, tuple(sized.given))]
    return [
        *rows,
        Count(both, taps, ("ghost_add",)),
        *(Count(add, taps, (name,)) for name in ("attn", "ghost_add")),
        Count(none, taps, ("value",)),
    ]


@st.composite
def random(draw: st.DrawFn) -> GhostHead:
    options = draw(sizes_and_options())
    matrix = st.sampled_from(["none", "shared", "sample"])
    channels = options["heads"] * draw(st.integers(1, 40))
    return GhostHead(**options, channels=channels, mul=draw(matrix), add=draw(matrix))


@st.composite
def random_bordered(draw: st.DrawFn) -> GhostHead:
    matrix, stride = st.sampled_from(["none", "shared", "sample"]), st.integers(1, 2)
    (call,) = bordered([draw(local_cases.random(Local))])
    return replace(call, stride=(draw(stride), draw(stride)), mul=draw(matrix), add=draw(matrix))

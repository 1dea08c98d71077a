"""Calls of the ops of local attention, their sizes and options, and what is wrong with them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import golden
import torch
from hypothesis import strategies as st
from ops.cases import Case, Shape, pair
from ops.spec import BadCall, Change, be, drop, shape, squeeze, to, unsqueeze


@dataclass(frozen=True)
class Local(Case):
    """One call; sizes may be pairs, and ``bias`` is "none", "tap" or "relative", or one of the latter and "sample"."""

    matrices = ("bias",)

    kernel_size: Any = 3
    dilation: Any = 1
    scale: float = 0.7
    border: str = "zeros"
    window_stride: Any = 1
    causal: tuple[int, int] = (0, 0)
    bias: str = "relative"

    @property
    def options(self) -> dict[str, Any]:
        names = ("heads", "kernel_size", "dilation", "scale", "border", "window_stride", "causal")
        return {name: getattr(self, name) for name in names}

    @property
    def kernel(self) -> tuple[int, int]:
        """The kernel size along both axes."""
        return pair(self.kernel_size)

    @property
    def map(self) -> Shape:
        """The shape of query and key."""
        return (self.batch, self.channels, self.height, self.width)

    @property
    def bias_shape(self) -> Shape | None:
        """The shape of the bias, if there is one."""
        rows, columns = self.kernel
        kind, _, sample = self.bias.partition(" ")
        shapes = {
            "none": None,
            "tap": (self.heads, rows * columns),
            "relative": (self.heads, 2 * rows - 1, 2 * columns - 1),
        }
        return (self.batch, *shapes[kind]) if sample else shapes[kind]

    def _others(self) -> str:
        causal = f"-causal{self.causal}" if any(self.causal) else ""
        strided = f"-w{self.window_stride}" if self.window_stride != 1 else ""
        return f"-{self.border}{strided}{causal}-{self.bias.replace(' ', '_')}"


AnyLocal = TypeVar("AnyLocal", bound=Local)


def options(op: type[AnyLocal]) -> list[AnyLocal]:
    """Every option in as small a call."""
    return [
        op(batch=1, channels=4, height=3, width=4),
        op(batch=2, channels=2, height=4, width=3, kernel_size=(2, 3), border="mask", bias="tap sample"),
        op(batch=1, channels=2, height=4, width=5, dilation=(1, 2), border="circular", bias="none"),
        op(batch=1, channels=2, height=4, width=6, kernel_size=(3, 2), dilation=(1, 2), border="shift"),
        op(batch=1, channels=2, height=3, width=5, border="shift", window_stride=(1, 2), causal=(1, 0), bias="tap"),
    ]


def sizes(op: type[AnyLocal]) -> list[AnyLocal]:
    """Every size and option that a kernel can trip over."""
    return [
        op(),
        op(kernel_size=1, bias="tap"),
        op(kernel_size=5, height=7, width=9),
        op(channels=8, kernel_size=7, height=11, width=8, bias="none"),
        op(kernel_size=9, height=10, width=12, bias="tap"),
        op(kernel_size=11, batch=1, height=13, width=9, border="mask"),
        op(kernel_size=(3, 7), dilation=(2, 1), height=9, width=10, border="mask", bias="tap"),
        op(kernel_size=(2, 4), height=7, width=8, border="mask"),
        op(kernel_size=4, height=7, width=8),
        op(kernel_size=5, dilation=2, height=9, width=10),
        op(kernel_size=7, dilation=50),
        op(kernel_size=7, height=2, width=3),
        op(kernel_size=5, height=1, width=37, border="mask"),
        op(kernel_size=(5, 1), height=37, width=1),
        op(border="circular", kernel_size=5, height=7, width=9, bias="none"),
        op(border="circular", kernel_size=7, height=3, width=2),
        op(border="circular", kernel_size=(3, 4), dilation=(3, 2), height=9, width=10, bias="tap"),
        op(border="circular", kernel_size=5, dilation=(3, 4), height=7, width=37),
        op(border="circular", kernel_size=3, dilation=100, height=7, width=6),
        op(border="shift", kernel_size=5, height=9, width=11),
        op(border="shift", kernel_size=7, height=7, width=7, bias="relative sample"),
        op(border="shift", kernel_size=3, dilation=(2, 3), height=11, width=9),
        op(border="shift", kernel_size=(1, 7), dilation=(1, 2), height=1, width=30, bias="tap sample"),
        op(border="shift", kernel_size=4, height=9, width=6, bias="none"),
        op(border="shift", kernel_size=7, window_stride=7, batch=1, height=14, width=21),
        op(border="shift", kernel_size=5, window_stride=(2, 3), height=12, width=13, bias="tap"),
        op(border="shift", kernel_size=5, causal=(1, 1), height=9, width=8),
        op(border="shift", kernel_size=(3, 6), dilation=2, window_stride=(1, 4), causal=(0, 1), height=8, width=19),
        op(channels=1, heads=1, width=13),
        op(channels=33, heads=3, width=5, border="shift"),
        op(channels=131, heads=1, width=4, border="mask"),
        op(channels=40, heads=5, width=19),
        op(channels=80, heads=2, kernel_size=7, batch=1, height=9, width=17, border="shift"),
        op(batch=1, channels=64, heads=2, kernel_size=7, height=33, width=30, border="shift"),
        op(batch=1, channels=6, heads=1, kernel_size=5, height=37, width=61, border="circular", bias="tap"),
        op(batch=2, channels=14, heads=2, kernel_size=7, dilation=3, height=21, width=59, border="shift"),
    ]


def empty(op: type[AnyLocal]) -> list[AnyLocal]:
    """Results without an element."""
    return [op(batch=0), op(batch=0, bias="none", border="shift"), op(batch=0, bias="tap sample")]


def edges(op: type[AnyLocal]) -> list[AnyLocal]:
    """One of everything that changes shapes or what is given."""
    return [
        op(channels=8),
        op(bias="none", kernel_size=5),
        op(bias="tap", kernel_size=(2, 5)),
        op(bias="relative sample", border="shift"),
        op(channels=1, heads=1, kernel_size=1),
        op(height=1, width=1),
        op(height=1, width=9, border="mask"),
        op(batch=0),
    ]


def kernels(op: type[AnyLocal]) -> list[AnyLocal]:
    """Several tiles, thread blocks and phases."""
    return [
        op(batch=2, channels=24, heads=3, kernel_size=7, height=23, width=33, border="shift"),
        op(batch=1, channels=20, heads=1, kernel_size=3, height=31, width=29, border="circular", dilation=2),
        op(batch=3, channels=8, heads=4, kernel_size=5, height=9, width=19, border="mask", bias="tap sample"),
    ]


def vectors(op: type[AnyLocal]) -> list[AnyLocal]:
    """Full vectors, parts of one, and K with code of its own."""
    return [
        op(),
        op(channels=40, heads=5, kernel_size=7, width=19, border="shift", height=9),
        op(channels=64, heads=2, kernel_size=7, height=9, width=21, border="shift", window_stride=5),
        op(channels=32, heads=1, kernel_size=7, height=7, width=28, border="shift", window_stride=7),
        op(channels=33, heads=3, kernel_size=5, width=17, dilation=2, border="mask"),
        op(channels=37, heads=1, kernel_size=(3, 6), height=3, width=35, border="circular", bias="tap"),
        op(channels=7, heads=7, kernel_size=13, height=5, width=4, bias="none"),
    ]


def laid_out(op: type[AnyLocal]) -> list[tuple[AnyLocal, torch.dtype]]:
    """A call for every way in which kernels read memory."""
    return [
        (op(channels=36, heads=3, height=5, width=6), torch.float32),
        (op(channels=36, heads=1, height=5, width=6, border="shift", dilation=(1, 2)), torch.float32),
        (op(channels=24, heads=3, height=5, width=6, border="circular"), torch.bfloat16),
    ]


def compiled(op: type[AnyLocal]) -> list[AnyLocal]:
    """Calls that compile with dynamic sizes. The compiler takes equal sizes for one: heads is equal to no other."""
    return [
        op(channels=8, heads=4, kernel_size=5),
        op(channels=8, heads=4, border="shift", bias="tap", dilation=2),
    ]


def bad_calls(op: type[AnyLocal], first: list[BadCall]) -> list[BadCall]:
    """What is wrong with arguments that all ops of local attention have."""
    plain = op(channels=6, heads=2, height=5, width=7)
    shifted = replace(plain, border="shift")

    def bad(name: str, words: str, case: Local = plain, **changes: Change) -> BadCall:
        return BadCall(name, words, case, changes)

    return [
        bad("query_3d", "query 3", query=squeeze),
        bad("query_5d", "query 5", query=unsqueeze),
        bad("query_no_rows", "query 0", query=shape(2, 6, 0, 7)),
        bad("query_integer", "query int64", query=to(torch.int64)),
        bad("key_batch", "key 1 2", key=drop(0)),
        bad("key_channels", "key 5 6", key=drop(1)),
        bad("key_width", "key 6 7", key=drop(3)),
        bad("key_double", "key float64", key=to(torch.float64)),
        bad("key_on_meta", "key meta cpu", key=to("meta")),
        bad("bias_double", "bias float64", bias=to(torch.float64)),
        bad("bias_on_meta", "bias meta cpu", bias=to("meta")),
        bad("bias_shape", "bias 5 4", bias=drop(2)),
        bad("bias_heads", "bias 1 2", bias=drop(0)),
        bad("heads_zero", "heads 0", heads=be(0)),
        bad("heads_negative", "heads -2", heads=be(-2)),
        bad("heads_do_not_divide", "query 6 4", heads=be(4)),
        bad("kernel_size_zero", "kernel_size 0", kernel_size=be([3, 0])),
        bad("kernel_size_negative", "kernel_size -3", kernel_size=be([-3, 3])),
        bad("kernel_size_huge", "kernel_size 2147483648", kernel_size=be([2**31, 3])),
        bad("kernel_size_large", "kernel_size 100000", kernel_size=be([100000, 100000])),
        bad("dilation_zero", "dilation 0", dilation=be([1, 0])),
        bad("window_stride_zero", "window_stride 0", shifted, window_stride=be([0, 1])),
        bad("window_stride_large", "window_stride 4 3", shifted, window_stride=be([1, 4])),
        bad("window_stride_zeros", "window_stride shift zeros", window_stride=be([2, 2])),
        bad("causal_zeros", "causal shift zeros", causal=be([1, 0])),
        bad("causal_two", "causal 2", shifted, causal=be([0, 2])),
        bad("border_unknown", "border reflect", border=be("reflect")),
        bad("shift_too_large", "kernel_size height 5", shifted, kernel_size=be([7, 3]), bias=shape(2, 13, 5)),
        bad("shift_dilated_too_far", "dilation width 7", shifted, dilation=be([1, 3])),
        *first,
    ]


@st.composite
def random(draw: st.DrawFn, op: Callable[..., AnyLocal]) -> AnyLocal:
    """Any sizes and options that fit. Where few taps are left apart, gradients are nearly zero, and all is rounding."""
    border = draw(st.sampled_from(["zeros", "mask", "circular", "shift"]))
    kernel, dilation = (
        (draw(st.integers(1, 8)), draw(st.integers(1, 8))),
        (draw(st.integers(1, 4)), draw(st.integers(1, 4))),
    )
    least = [
        max(3, size * step if border in ("circular", "shift") else 0)
        for size, step in zip(kernel, dilation, strict=True)
    ]
    shifts = border == "shift"
    heads = draw(st.integers(1, 3))
    return op(
        batch=draw(st.integers(1, 2)),
        heads=heads,
        channels=heads * draw(st.integers(1, 20)),
        height=least[0] + draw(st.integers(0, 9)),
        width=least[1] + draw(st.integers(0, 9)),
        kernel_size=kernel,
        dilation=dilation,
        border=border,
        window_stride=tuple(draw(st.integers(1, size)) for size in kernel) if shifts else 1,
        causal=(draw(st.integers(0, 1)), draw(st.integers(0, 1))) if shifts else (0, 0),
        bias=draw(st.sampled_from(["none", "tap", "relative", "tap sample", "relative sample"])),
    )


@dataclass
class GoldenArguments:
    """The arguments of a golden case as leaves."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    options: dict[str, Any]

    def by_head(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take the channels, or taps, of every head apart."""
        return tensor.unflatten(1, (self.options["heads"], -1))


def golden_arguments(case: golden.Case, device: str) -> GoldenArguments:
    """Make the arguments of a case of ``neighborhood``."""
    given = case.settings
    heads, (rows, columns) = given["heads"], given["kernel_size"]
    shape = (given["batch"], heads, given["head_dim"], given["height"], given["width"])
    query, key, value = (
        case.fill(name, shape).to(device).flatten(1, 2).requires_grad_() for name in ("query", "key", "value")
    )
    shapes = {None: None, "tap": (heads, rows * columns), "relative": (heads, 2 * rows - 1, 2 * columns - 1)}
    bias_shape = shapes[given["bias"]]
    bias = None if bias_shape is None else case.fill("bias", bias_shape).to(device).requires_grad_()
    names = ("heads", "kernel_size", "dilation", "scale", "border", "window_stride", "causal")
    return GoldenArguments(query, key, value, bias, {name: given[name] for name in names})

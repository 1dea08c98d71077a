"""What is measured: an ELSA layer's sizes and how its tensors are stored. Without torch, as the parser needs it."""

import argparse
import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import CommandError

DTYPES = ("float32", "bfloat16", "float16", "float64")
LAYOUTS = ("channels_last", "contiguous")
MATRICES = {"both": "ghost_mul and ghost_add", "mul": "ghost_mul", "add": "ghost_add", "none": "no matrix"}


@dataclass(frozen=True)
class Preset:
    """An attention layer of a published model."""

    size: tuple[int, int]
    channels: int
    kernel_size: int
    group_width: int
    matrices: str


PRESETS = {
    "swin-t-1": Preset((56, 56), 96, 7, 4, "add"),
    "swin-t-2": Preset((28, 28), 192, 7, 4, "add"),
    "swin-t-3": Preset((14, 14), 384, 7, 4, "add"),
    "volo-d1": Preset((28, 28), 192, 5, 8, "both"),
}
# The flags that make another layer than a preset's, beside --matrices.
SHAPE_FLAGS = ("size", "channels", "heads", "kernel_size", "dilation", "stride", "group_width")


@dataclass(frozen=True)
class Problem:
    """One ELSA layer over a map."""

    name: str
    batch: int
    height: int
    width: int
    channels: int
    heads: int
    kernel_size: int
    dilation: int
    stride: int
    group_width: int
    matrices: str
    dtype: str
    layout: str

    @property
    def dim_qk(self) -> int:
        """Channels of query and of key, as `elsa_ext.nn.ELSA` chooses them."""
        return math.ceil((self.channels // 3 * 2) / self.group_width) * self.group_width

    @property
    def taps(self) -> int:
        """Neighbours of a pixel."""
        return self.kernel_size**2

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.height // self.stride, self.width // self.stride

    def identity(self) -> dict[str, Any]:
        """Return what the result files hold of it."""
        return {**asdict(self), "dim_qk": self.dim_qk}

    def __str__(self) -> str:
        parts = [f"{self.batch} x {self.channels} x {self.height} x {self.width}", f"{self.heads} heads"]
        parts += [f"K = {self.kernel_size}"]
        parts += [f"dilation {self.dilation}"] * (self.dilation > 1) + [f"stride {self.stride}"] * (self.stride > 1)
        return ", ".join((*parts, self.dtype, self.layout))


def problems(args: argparse.Namespace) -> list[Problem]:
    """Return the problems that the arguments ask for.

    Raises:
        CommandError: One is impossible.
    """
    changed = any(getattr(args, flag) is not None for flag in SHAPE_FLAGS)
    if args.preset:
        names = list(PRESETS) if "all" in args.preset else list(dict.fromkeys(args.preset))
        found = [make(f"{name}, changed" if changed else name, PRESETS[name], args) for name in names]
    elif changed:
        found = [make("custom", PRESETS["swin-t-1"], args)]
    else:
        found = [make(name, preset, args) for name, preset in PRESETS.items()]
    for problem in found:
        check(problem)
    return found


def make(name: str, preset: Preset, args: argparse.Namespace) -> Problem:
    """Return a preset's problem, changed by the flags that are given."""

    def chosen(flag: str, default: Any) -> Any:
        given = getattr(args, flag)
        return default if given is None else given

    channels = chosen("channels", preset.channels)
    height, width = chosen("size", preset.size)
    return Problem(
        name=name,
        batch=args.batch,
        height=height,
        width=width,
        channels=channels,
        heads=chosen("heads", max(1, channels // 32)),
        kernel_size=chosen("kernel_size", preset.kernel_size),
        dilation=chosen("dilation", 1),
        stride=chosen("stride", 1),
        group_width=chosen("group_width", preset.group_width),
        matrices=chosen("matrices", preset.matrices),
        dtype=args.dtype,
        layout=args.layout,
    )


def check(problem: Problem) -> None:
    """Raise a ``CommandError`` if there is no such layer."""
    if problem.kernel_size % 2 == 0:
        raise CommandError(f"--kernel-size must be odd, got {problem.kernel_size}")
    if problem.channels % problem.heads:
        raise CommandError(f"--heads {problem.heads} does not divide the {problem.channels} channels")
    if problem.dim_qk == 0:
        raise CommandError(f"--channels {problem.channels} leaves no channel for query and key; take 3 or more")
    if 0 in problem.out_size:
        raise CommandError(f"--stride {problem.stride} leaves nothing of a {problem.height} x {problem.width} map")

"""The problems of neighbourhood attention. Without torch, as the parser needs it."""

import math
from dataclasses import dataclass
from typing import Any

from ..errors import CommandError
from .problems import Problem

BORDERS = ("shift", "mask", "circular", "zeros")
BIASES = ("relative", "none")
# Swin-T as it would be without windows, and DiNAT-Mini, whose layers go far and near in turn.
PRESETS: dict[str, dict[str, Any]] = {
    "swin-t-1": dict(size=(56, 56), channels=96, kernel_size=7),
    "swin-t-2": dict(size=(28, 28), channels=192, kernel_size=7),
    "swin-t-3": dict(size=(14, 14), channels=384, kernel_size=7),
    "dinat-mini-1": dict(size=(56, 56), channels=64, kernel_size=7),
    "dinat-mini-1-far": dict(size=(56, 56), channels=64, kernel_size=7, dilation=8),
    "dinat-mini-2": dict(size=(28, 28), channels=128, kernel_size=7),
    "dinat-mini-2-far": dict(size=(28, 28), channels=128, kernel_size=7, dilation=4),
    "dinat-mini-3": dict(size=(14, 14), channels=256, kernel_size=7),
    "dinat-mini-3-far": dict(size=(14, 14), channels=256, kernel_size=7, dilation=2),
    "dinat-mini-4": dict(size=(7, 7), channels=512, kernel_size=7),
}


@dataclass(frozen=True, kw_only=True)
class LocalProblem(Problem):
    """One layer of neighbourhood attention over a map."""

    what = "neighbourhood attention"
    presets = PRESETS
    sizes = ("size", "channels", "heads", "kernel_size", "dilation")
    options = ("border", "window_stride", "bias")

    border: str = BORDERS[0]
    window_stride: int = 1
    bias: str = BIASES[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of query, key and value."""
        return self.batch, self.channels, self.height, self.width

    @property
    def bias_shape(self) -> tuple[int, int, int] | None:
        """Of the bias, if there is one."""
        side = 2 * self.kernel_size - 1
        return None if self.bias == "none" else (self.heads, side, side)

    @property
    def neighbourhood(self) -> dict[str, Any]:
        """The options of the ops, but for the scale."""
        names = ("heads", "kernel_size", "dilation", "border", "window_stride")
        return {name: getattr(self, name) for name in names}

    @property
    def scale(self) -> float:
        """Of the products of query and key."""
        return 1 / math.sqrt(self.channels // self.heads)

    def check(self) -> None:
        """Raise a ``CommandError`` if there is no such layer."""
        super().check()
        if self.window_stride > self.kernel_size:
            raise CommandError(f"--window-stride {self.window_stride} is more than --kernel-size {self.kernel_size}")
        if self.window_stride > 1 and self.border != "shift":
            raise CommandError(f"--window-stride {self.window_stride} needs --border shift, got {self.border}")
        reach = self.kernel_size * self.dilation
        if self.border == "shift" and reach > min(self.height, self.width):
            raise CommandError(
                f"--border shift needs kernel size x dilation = {reach} to fit in the {self.height} x {self.width} map"
            )

    def parts(self) -> list[str]:
        """Return the sizes in words."""
        parts = [*super().parts(), f"border {self.border}"]
        parts += [f"window stride {self.window_stride}"] * (self.window_stride > 1)
        return parts + ["relative bias"] * (self.bias == "relative")

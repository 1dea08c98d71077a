"""The problems of ELSA: one layer of it over a map. Without torch, as the parser needs it."""

import math
from dataclasses import dataclass
from typing import Any

from ..errors import CommandError
from .problems import Problem

MATRICES = {"both": "ghost_mul and ghost_add", "mul": "ghost_mul", "add": "ghost_add", "none": "no matrix"}
PRESETS: dict[str, dict[str, Any]] = {
    "swin-t-1": dict(size=(56, 56), channels=96, kernel_size=7, group_width=4, matrices="add"),
    "swin-t-2": dict(size=(28, 28), channels=192, kernel_size=7, group_width=4, matrices="add"),
    "swin-t-3": dict(size=(14, 14), channels=384, kernel_size=7, group_width=4, matrices="add"),
    "volo-d1": dict(size=(28, 28), channels=192, kernel_size=5, group_width=8, matrices="both"),
}


@dataclass(frozen=True, kw_only=True)
class ElsaProblem(Problem):
    """One ELSA layer over a map."""

    what = "ELSA"
    presets = PRESETS
    sizes = ("size", "channels", "heads", "kernel_size", "dilation", "stride", "group_width")
    options = ("matrices",)

    stride: int = 1
    group_width: int
    matrices: str

    @property
    def dim_qk(self) -> int:
        """Channels of query and of key, as `elsa_ext.nn.ELSA` chooses them."""
        return math.ceil((self.channels // 3 * 2) / self.group_width) * self.group_width

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.height // self.stride, self.width // self.stride

    def identity(self) -> dict[str, Any]:
        """Return what the result files hold of it."""
        return {**super().identity(), "dim_qk": self.dim_qk}

    def check(self) -> None:
        """Raise a ``CommandError`` if there is no such layer."""
        if self.kernel_size % 2 == 0:
            raise CommandError(f"--kernel-size must be odd, got {self.kernel_size}")
        super().check()
        if self.dim_qk == 0:
            raise CommandError(f"--channels {self.channels} leaves no channel for query and key; take 3 or more")
        if 0 in self.out_size:
            raise CommandError(f"--stride {self.stride} leaves nothing of a {self.height} x {self.width} map")

    def parts(self) -> list[str]:
        """Return the sizes in words."""
        return super().parts() + [f"stride {self.stride}"] * (self.stride > 1)

    def with_matrices(self) -> str:
        """Describe it for the ghost head."""
        return f"{self}, {MATRICES[self.matrices]}"

    def with_convolution(self) -> str:
        """Describe it for Hadamard attention."""
        return f"{self}, query of {self.dim_qk} channels, groups of {self.group_width}"

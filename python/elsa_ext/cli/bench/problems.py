"""What is measured: the sizes of a call or a layer, and how its tensors are stored. Without torch, for the parser."""

import argparse
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

from ..errors import CommandError

DTYPES = ("float32", "bfloat16", "float16", "float64")
LAYOUTS = ("channels_last", "contiguous")
# The flags of the command that make a problem, but for those that every problem has.
FLAGS = (
    *("size", "channels", "heads", "kernel_size", "dilation"),
    *("stride", "group_width", "matrices"),
    *("border", "window_stride", "bias"),
    "member",
)

AnyProblem = TypeVar("AnyProblem", bound="Problem")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A call or a layer over a map; every kind of local attention has its own."""

    what: ClassVar[str]
    """The kind, in messages."""
    presets: ClassVar[dict[str, dict[str, Any]]]
    """Layers of published models."""
    sizes: ClassVar[tuple[str, ...]]
    """The flags that make another layer than a preset's."""
    options: ClassVar[tuple[str, ...]]
    """The other flags that it has."""

    name: str
    batch: int
    height: int
    width: int
    channels: int
    heads: int
    kernel_size: int
    dilation: int = 1
    dtype: str
    layout: str

    @classmethod
    def make(cls: type[AnyProblem], name: str, preset: dict[str, Any], args: argparse.Namespace) -> AnyProblem:
        """Return a preset's problem, changed by the flags that are given."""
        given = {flag: value for flag in cls.sizes + cls.options if (value := getattr(args, flag)) is not None}
        chosen = preset | given
        chosen["height"], chosen["width"] = chosen.pop("size")
        chosen.setdefault("heads", max(1, chosen["channels"] // 32))
        return cls(name=name, batch=args.batch, dtype=args.dtype, layout=args.layout, **chosen)

    @property
    def taps(self) -> int:
        """Neighbours of a pixel."""
        return self.kernel_size**2

    def identity(self) -> dict[str, Any]:
        """Return what the result files hold of it."""
        return asdict(self)

    def check(self) -> None:
        """Raise a ``CommandError`` if there is no such problem."""
        if self.channels % self.heads:
            raise CommandError(f"--heads {self.heads} does not divide the {self.channels} channels")

    def __str__(self) -> str:
        return ", ".join((*self.parts(), self.dtype, self.layout))

    def parts(self) -> list[str]:
        """Return the sizes in words."""
        parts = [f"{self.batch} x {self.channels} x {self.height} x {self.width}", f"{self.heads} heads"]
        return parts + [f"K = {self.kernel_size}"] + [f"dilation {self.dilation}"] * (self.dilation > 1)


def problems(kind: type[AnyProblem], args: argparse.Namespace) -> list[AnyProblem]:
    """Return the problems of a kind that the arguments ask for.

    Raises:
        CommandError: One is impossible, or an argument is not for this kind.
    """
    for flag in FLAGS:
        if getattr(args, flag) is not None and flag not in kind.sizes + kind.options:
            raise CommandError(f"--{flag.replace('_', '-')} is not for {kind.what}")
    changed = any(getattr(args, flag) is not None for flag in kind.sizes)
    if args.preset:
        names = list(kind.presets) if "all" in args.preset else list(dict.fromkeys(args.preset))
        for name in names:
            if name not in kind.presets:
                raise CommandError(f"--preset {name} is not for {kind.what}, which has {', '.join(kind.presets)}")
        found = [kind.make(f"{name}, changed" if changed else name, kind.presets[name], args) for name in names]
    elif changed:
        found = [kind.make("custom", next(iter(kind.presets.values())), args)]
    else:
        found = [kind.make(name, preset, args) for name, preset in kind.presets.items()]
    for problem in found:
        problem.check()
    return found

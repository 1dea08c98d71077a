"""Calls of the two ops: their sizes, options, tensors and memory layouts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

Shape = tuple[int, ...]
Tensors = dict[str, Tensor | None]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class GhostHead:
    """One call of ``ghost_head``; ``mul`` and ``add`` are "none", "shared" or "sample" (one matrix per sample)."""

    op: ClassVar[str] = "ghost_head"

    batch: int = 2
    channels: int = 6
    heads: int = 2
    height: int = 6
    width: int = 7
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    mul: str = "shared"
    add: str = "shared"

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return {"kernel_size": self.kernel_size, "dilation": self.dilation, "stride": self.stride}

    @property
    def shapes(self) -> dict[str, Shape | None]:
        """The shape of every tensor argument, None for one that is not given."""
        taps = (self.kernel_size, self.kernel_size)
        matrix = {"none": None, "shared": (self.channels, *taps), "sample": (self.batch, self.channels, *taps)}
        grid = (self.height // self.stride, self.width // self.stride)
        return {
            "value": (self.batch, self.channels, self.height, self.width),
            "attn": (self.batch, self.heads * self.kernel_size**2, *grid),
            "ghost_mul": matrix[self.mul],
            "ghost_add": matrix[self.add],
        }

    @property
    def out_shape(self) -> Shape:
        """The shape of the result."""
        return (self.batch, self.channels, self.height // self.stride, self.width // self.stride)

    def __str__(self) -> str:
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        options = f"h{self.heads}-k{self.kernel_size}-d{self.dilation}-s{self.stride}"
        return f"ghost_head-{size}-{options}-mul_{self.mul}-add_{self.add}"


@dataclass(frozen=True)
class HadamardAttention:
    """One call of ``hadamard_attention``; ``proj_rank`` is 4 where proj_weight has a trailing 1x1."""

    op: ClassVar[str] = "hadamard_attention"

    batch: int = 2
    channels: int = 6
    heads: int = 2
    height: int = 6
    width: int = 7
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    groups: int = 2
    proj_groups: int = 1
    proj_rank: int = 4
    scale: float = 0.7
    conv_bias: bool = True
    proj_bias: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        names = ("heads", "scale", "dilation", "stride", "proj_groups")
        return {name: getattr(self, name) for name in names}

    @property
    def shapes(self) -> dict[str, Shape | None]:
        """The shape of every tensor argument, None for one that is not given."""
        taps = self.kernel_size**2
        image = (self.batch, self.channels, self.height, self.width)
        return {
            "query": image,
            "key": image,
            "conv_weight": (self.channels, self.channels // self.groups, self.kernel_size, self.kernel_size),
            "conv_bias": (self.channels,) if self.conv_bias else None,
            "proj_weight": (self.heads * taps, self.channels // self.proj_groups, 1, 1)[: self.proj_rank],
            "proj_bias": (self.heads * taps,) if self.proj_bias else None,
        }

    @property
    def out_shape(self) -> Shape:
        """The shape of the result."""
        rows = self.heads * self.kernel_size**2
        return (self.batch, rows, self.height // self.stride, self.width // self.stride)

    def __str__(self) -> str:
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        options = f"h{self.heads}-k{self.kernel_size}-d{self.dilation}-s{self.stride}"
        groups = f"g{self.groups}-p{self.proj_groups}-rank{self.proj_rank}"
        return f"hadamard_attention-{size}-{options}-{groups}-bias{self.conv_bias:d}{self.proj_bias:d}"


Case = GhostHead | HadamardAttention

MATRICES = ("ghost_mul", "ghost_add")


def normal(shape: Shape, dtype: torch.dtype, device: str, seed: int) -> Tensor:
    """Normal values that depend on ``shape`` and ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


def make(
    case: Case,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    matrix_dtype: torch.dtype | None = None,
    layouts: Mapping[str, str] | None = None,
) -> Tensors:
    """The tensors of ``case`` by argument name, each in its layout ("contiguous" where ``layouts`` has none)."""
    tensors: Tensors = {}
    for seed, (name, shape) in enumerate(case.shapes.items()):
        if shape is None:
            tensors[name] = None
            continue
        tensor = normal(shape, matrix_dtype if matrix_dtype and name in MATRICES else dtype, device, seed)
        if name.endswith("_weight"):
            tensor /= max(tensor[:1].numel(), 1) ** 0.5
        tensors[name] = arrange(tensor, (layouts or {}).get(name, "contiguous"))
    return tensors


def make_grad(
    case: Case, dtype: torch.dtype = torch.float64, device: str = "cpu", layout: str = "contiguous"
) -> Tensor:
    """A gradient for the result of ``case``."""
    return arrange(normal(case.out_shape, dtype, device, 99), layout)


LAYOUTS = ("contiguous", "channels_last", "channel_slice", "transposed", "cropped", "expanded")
GRAD_LAYOUTS = (*LAYOUTS, "pooled")


def arrange(tensor: Tensor, layout: str) -> Tensor:
    """Lay a 4-d ``tensor`` out in memory as ``layout`` says.

    "expanded" repeats the first sample with stride 0; "pooled" the first pixel, as the gradient of a mean over pixels.
    """
    if layout == "contiguous":
        return tensor.contiguous()
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "expanded":
        return tensor[:1].contiguous().expand(tensor.shape)
    if layout == "pooled":
        return tensor[:, :, :1, :1].contiguous().expand(tensor.shape)
    batch, channels, height, width = tensor.shape
    if layout == "channel_slice":
        wide = tensor.new_full((batch, height, width, 2 * channels + 3), torch.nan).permute(0, 3, 1, 2)
        view = wide[:, 1 : 1 + channels]
    elif layout == "transposed":
        view = tensor.new_full((width, batch, channels, height), torch.nan).permute(1, 2, 3, 0)
    elif layout == "cropped":
        view = tensor.new_full((batch, channels, height + 3, width + 2), torch.nan)[:, :, 2 : 2 + height, 1 : 1 + width]
    else:
        raise ValueError(f"arrange: unknown layout {layout!r}")
    return view.copy_(tensor)


def channels_last(case: Case) -> dict[str, str]:
    """Layouts that put every image of ``case`` in channels_last."""
    images = ("value", "attn", "query", "key")
    return {name: "channels_last" for name in case.shapes if name in images}

"""A call of an op: what every op's own class of cases has, and the tensors of a case in their dtypes and layouts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

Shape = tuple[int, ...]
Tensors = dict[str, Tensor | None]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """One call of an op by its sizes and options, which its own class adds to those that every op has."""

    op: ClassVar[str]
    images: ClassVar[tuple[str, ...]]
    """The arguments that are maps, of any layout."""
    matrices: ClassVar[tuple[str, ...]] = ()
    """The arguments that may be float32 beside 16-bit maps, and that autocast leaves alone."""
    weights: ClassVar[tuple[str, ...]] = ()
    """The arguments that many products are summed over, made small enough that the sums are not large."""

    batch: int = 2
    channels: int = 6
    heads: int = 2
    height: int = 6
    width: int = 7
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        raise NotImplementedError

    @property
    def shapes(self) -> dict[str, Shape | None]:
        """The shape of every tensor argument, None for one that is not given."""
        raise NotImplementedError

    @property
    def out_shape(self) -> Shape:
        """The shape of the result."""
        raise NotImplementedError

    def backward_inputs(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the backward op takes beside the gradient and the ``arguments`` of the op."""
        return {}

    @property
    def given(self) -> list[str]:
        """The tensor arguments that are given."""
        return [name for name, shape in self.shapes.items() if shape is not None]

    def laid_out(self, layout: str, *others: str) -> dict[str, str]:
        """Every map, and ``others`` such as "grad", in ``layout``."""
        return dict.fromkeys([*self.images, *others], layout)

    def __str__(self) -> str:
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{self.op}-{size}-h{self.heads}-k{self.kernel_size}-d{self.dilation}-s{self.stride}{self._others()}"

    def _others(self) -> str:
        """The options of this op alone, for the name of a test."""
        return ""


def pair(option: Any) -> tuple[int, int]:
    """An option for each axis, of one for both or of two."""
    return tuple(option) if isinstance(option, (tuple, list)) else (option, option)


def marks_of(case: Case) -> list[pytest.MarkDecorator]:
    """Of a comparison of ``case``: where there are many numbers, emulated kernels take seconds."""
    return [pytest.mark.thorough] if numbers(case) > 10_000 else []


def numbers(case: Case) -> int:
    """How many a map has."""
    return math.prod((case.batch, case.channels, case.height, case.width))


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
        tensor = normal(shape, matrix_dtype if matrix_dtype and name in case.matrices else dtype, device, seed)
        if name in case.weights:
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

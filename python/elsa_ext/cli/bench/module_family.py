"""The members of the family of local operators, against their formulas and what people use for them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ... import nn as ours_nn
from ...nn import LocalAttention, LocalSpec
from ...nn.windows import cropped, padded
from ..errors import CommandError
from .contenders import Contender, Task, own, random_map, rated
from .layers import multiply_adds, replaced, window_attention
from .local_peers import peers
from .module_local import between_projections
from .problem_family import MODULES, FamilyProblem
from .problem_local import LocalProblem


def contenders(
    problem: FamilyProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield the member and its baselines."""
    image = random_map(
        (problem.batch, problem.channels, problem.height, problem.width), problem.dtype, problem.layout, device
    )
    x = (image if problem.member in MODULES else image.permute(0, 2, 3, 1)).requires_grad_()
    layer = member(problem).to(x)
    leaves = [x, *layer.parameters()]

    def ours(x: Tensor, *_: Tensor) -> Tensor:
        out: Tensor = layer(x)
        return out

    counts = functools.cache(lambda: multiply_adds(ours, leaves, backprop))

    def tasks(function: Callable[..., Tensor]) -> dict[str, Task]:
        return rated(function, leaves, backprop, counts())

    yield from own(tasks, ours, baselines, f"elsa_ext.nn.{type(layer).__name__}")
    if isinstance(layer, LocalAttention):
        yield from others(problem, layer, x, backprop, baselines)


def member(problem: FamilyProblem) -> nn.Module:
    """Return the layer; window attention shifted as in every second block of Swin.

    Raises:
        CommandError: There is no such layer.
    """
    sizes: dict[str, Any] = {"kernel_size": problem.kernel_size, "dilation": problem.dilation}
    try:
        if problem.member == "CARAFE":
            return ours_nn.CARAFE(problem.channels, kernel_size=problem.kernel_size)
        if problem.member in MODULES:
            return getattr(ours_nn, problem.member)(problem.channels, **sizes)
        spec = LocalSpec.parse(problem.member)
        is_swin = spec.region == "window" and "qk" in spec.terms and problem.dilation == 1
        heads = None if spec.heads else problem.heads
        return LocalAttention(problem.channels, spec, heads=heads, shift=is_swin * (problem.kernel_size // 2), **sizes)
    except ValueError as error:
        raise CommandError(f"--member {problem.member!r}: {error}") from error


def others(
    problem: FamilyProblem, layer: LocalAttention, x: Tensor, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield what people use for such a layer."""
    spec = LocalSpec.parse(layer.spec)
    attention = spec.terms == ("qk", "rb") and spec.norm == "softmax" and not spec.mul and not spec.add
    if "timm" in baselines and attention and layer.window:
        yield Contender(
            "timm", "timm window attention", lambda: replaced(lambda: window_attention(problem), x, backprop)
        )
    if attention and layer.border == "shift" and not layer.window:
        sizes = {name: getattr(problem, name) for name in ("name", "batch", "height", "width", "channels", "heads")}
        options = {name: getattr(problem, name) for name in ("kernel_size", "dilation", "dtype", "layout")}
        local = LocalProblem(**sizes, **options)
        for peer in peers(local, layer.r_bias, x.device):
            if peer.key in baselines:
                yield Contender(peer.key, peer.name, functools.partial(between_projections, peer, local, x, backprop))
    if "conv2d" in baselines and spec.terms == ("rb",) and spec.norm == "none" and spec.heads == "C":
        yield Contender("conv2d", "F.conv2d", functools.partial(convolution, problem, layer, x, backprop))


def convolution(problem: FamilyProblem, layer: LocalAttention, x: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of a depthwise convolution between the same projections."""
    module = DepthwiseLayer(problem, layer.window).to(x)
    leaves = [x, *module.parameters()]

    def forward(x: Tensor, *_: Tensor) -> Tensor:
        out: Tensor = module(x)
        return out

    return rated(forward, leaves, backprop, multiply_adds(forward, leaves, backprop))


class DepthwiseLayer(nn.Module):
    """A depthwise convolution between two projections, (B, H, W, C) in and out; or one in every window.

    The convolution of a window has a kernel that reaches from any of its pixels to any other.
    """

    def __init__(self, problem: FamilyProblem, windows: bool) -> None:
        super().__init__()
        self.side = problem.kernel_size if windows else None
        size, channels = problem.kernel_size * 2 - 1 if windows else problem.kernel_size, problem.channels
        self.value, self.proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        value = self.value(x)
        if self.side is None:
            return self.proj(self.conv(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        side = [self.side, self.side]
        whole = padded(value, side, [1, 1])
        cut = whole.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        out = self.conv(cut.flatten(0, 2).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(cut.shape)
        return self.proj(cropped(out.transpose(2, 3).flatten(3, 4).flatten(1, 2), x))

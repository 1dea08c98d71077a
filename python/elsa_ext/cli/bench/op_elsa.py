"""The ops of ELSA against their formula, a depthwise convolution, and other local attention."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import elsa_ext

from ...ops import flops
from .contenders import (
    BACKWARD,
    FORWARD,
    Contender,
    Task,
    in_layout,
    own,
    random_map,
    rated,
    softmax_over_taps,
)
from .neighbours import ATTENDS, NAMES, attention_multiply_adds
from .problem_elsa import ElsaProblem
from .problems import LAYOUTS


def ghost_head(
    problem: ElsaProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield `elsa_ext.ghost_head` and its baselines."""
    size = (problem.batch, problem.channels, problem.height, problem.width)
    value = random_map(size, problem.dtype, problem.layout, device)
    taps = problem.heads * problem.taps
    logits = random_map((problem.batch, taps, *problem.out_size), problem.dtype, problem.layout, device)
    has_mul, has_add = (problem.matrices in ("both", name) for name in ("mul", "add"))
    shape = (problem.channels, problem.kernel_size, problem.kernel_size)
    matrices = [torch.randn(shape, dtype=value.dtype, device=device) for _ in range(has_mul + has_add)]
    leaves = [value, softmax_over_taps(logits, problem.heads, problem.layout), *matrices]
    for leaf in leaves:
        leaf.requires_grad_()
    options: dict[str, Any] = {
        "kernel_size": problem.kernel_size,
        "dilation": problem.dilation,
        "stride": problem.stride,
    }

    def ours(value: Tensor, attn: Tensor, *matrices: Tensor) -> Tensor:
        ghost_mul = matrices[0] if has_mul else None
        ghost_add = matrices[-1] if has_add else None
        return elsa_ext.ghost_head(value, attn, ghost_mul, ghost_add, **options)

    shapes = (size, logits.shape, shape if has_mul else None, shape if has_add else None)
    forward = flops.ghost_head(*shapes, kernel_size=problem.kernel_size)
    backward = flops.ghost_head_backward((), *shapes, kernel_size=problem.kernel_size)
    counts = {FORWARD: forward, BACKWARD: forward + backward}
    yield from own(lambda function: rated(function, leaves, backprop, counts), ours, baselines)
    yield from others(problem, value.detach(), backprop, baselines)


def hadamard_attention(
    problem: ElsaProblem, device: torch.device, backprop: bool, baselines: tuple[str, ...]
) -> Iterator[Contender]:
    """Yield `elsa_ext.hadamard_attention` and its baselines; its formula calls the convolutions of oneDNN or cuDNN."""
    narrow, taps = problem.dim_qk, problem.heads * problem.taps
    size = (problem.batch, narrow, problem.height, problem.width)
    query, key = (random_map(size, problem.dtype, problem.layout, device) for _ in range(2))

    def parameter(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=query.dtype, device=device) / math.sqrt(math.prod(shape[1:]))

    conv = parameter(narrow, problem.group_width, problem.kernel_size, problem.kernel_size)
    leaves = [query, key, conv, parameter(narrow), parameter(taps, narrow), parameter(taps)]
    for leaf in leaves:
        leaf.requires_grad_()

    def ours(*tensors: Tensor) -> Tensor:
        return elsa_ext.hadamard_attention(
            *tensors, heads=problem.heads, dilation=problem.dilation, stride=problem.stride
        )

    shapes = [leaf.shape for leaf in leaves]
    forward = flops.hadamard_attention(*shapes, stride=problem.stride)
    backward = flops.hadamard_attention_backward((), (), *shapes, stride=problem.stride)
    counts = {FORWARD: forward, BACKWARD: forward + backward}
    yield from own(lambda function: rated(function, leaves, backprop, counts, output_saved=True), ours, baselines)
    yield from others(problem, query.detach(), backprop, baselines)


def others(problem: ElsaProblem, image: Tensor, backprop: bool, baselines: tuple[str, ...]) -> Iterator[Contender]:
    """Yield what does other work over the same neighbours, and is rated by its own work."""
    if "depthwise" in baselines:
        for layout in LAYOUTS:
            name = f"{'cuDNN' if image.is_cuda else 'oneDNN'} depthwise, {layout}"
            yield Contender("depthwise", name, functools.partial(depthwise, problem, image, layout, backprop))
    for key, name in NAMES.items():
        if key in baselines:
            yield Contender(key, name, functools.partial(neighbours, key, problem, image, backprop))


def depthwise(problem: ElsaProblem, image: Tensor, layout: str, backprop: bool) -> dict[str, Task]:
    """Return the tasks of a depthwise convolution of ``image``."""
    channels = image.shape[1]
    value = in_layout(image, layout).clone().requires_grad_()
    weight = torch.randn(channels, 1, *[problem.kernel_size] * 2, dtype=value.dtype, device=value.device)

    def convolve(value: Tensor, weight: Tensor) -> Tensor:
        padding = problem.kernel_size // 2 * problem.dilation
        return F.conv2d(value, weight, None, problem.stride, padding, problem.dilation, channels)

    forward = image.shape[0] * channels * math.prod(problem.out_size) * problem.taps
    return rated(convolve, [value, weight.requires_grad_()], backprop, {FORWARD: forward, BACKWARD: 3 * forward})


def neighbours(key: str, problem: ElsaProblem, image: Tensor, backprop: bool) -> dict[str, Task]:
    """Return the tasks of other local attention over maps of value's size."""
    attend = ATTENDS[key](problem, image.device)
    source, out = (problem.height, problem.width), problem.out_size
    heads = (problem.heads, problem.channels // problem.heads)
    leaves = [
        torch.randn(problem.batch, *size, *heads, dtype=image.dtype, device=image.device, requires_grad=True)
        for size in (out, source, source)
    ]
    forward = attention_multiply_adds(problem)
    return rated(attend, leaves, backprop, {FORWARD: forward, BACKWARD: 3 * forward})

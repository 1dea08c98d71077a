"""Other people's attention over neighbourhoods, FlexAttention and NATTEN, and PyTorch's over the whole map."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops.local import Neighbours, neighbours
from .measure import reason
from .problem_local import LocalProblem

# Where FlexAttention looks pairs of pixels up, which takes less than finding out where they are, and has blocks as wide
# as a vector: the fastest of 8, 16, 28, 32, 56, 64 and 128.
LOOKS_UP = ("cpu",)
# Maps query, key and value, each (B, H, W, heads, D), to (B, H, W, heads, D).
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        key: What it is.
        name: What the tables call it.
        make: Makes the function, with the bias as the function uses it.
        heads_first: It would have the heads before the pixels in memory.
        taps: How many pixels every pixel attends to.
        learned: The bias, if it can be learned.
    """

    key: str
    name: str
    make: Callable[[], Attend]
    heads_first: bool
    taps: int
    learned: tuple[Tensor, ...] = ()


def peers(problem: LocalProblem, bias: Tensor | None, device: torch.device) -> Iterator[Peer]:
    """Yield them for a problem; ``bias`` is (heads, 2K − 1, 2K − 1)."""
    whole = problem.height * problem.width
    yield Peer("sdpa", "SDPA, whole map", lambda: sdpa(problem), True, whole)
    # FlexAttention cannot attend to what is not there.
    name = "FlexAttention" + ", border mask" * (problem.border == "zeros")
    yield Peer("flex", name, lambda: flex(problem, bias, device), True, problem.taps, learned(bias))
    yield from natten(problem, bias)


def learned(bias: Tensor | None) -> tuple[Tensor, ...]:
    """Return the bias, if there is one."""
    return () if bias is None else (bias,)


def sdpa(problem: LocalProblem) -> Attend:
    """Return PyTorch's attention of all pixels to all pixels, without a bias."""

    def attend(*maps: Tensor) -> Tensor:
        query, key, value = map(tokens, maps)
        return as_map(F.scaled_dot_product_attention(query, key, value, scale=problem.scale), problem)

    return attend


def flex(problem: LocalProblem, bias: Tensor | None, device: torch.device) -> Attend:
    """Return compiled FlexAttention with a block mask of exactly the neighbours and a score_mod for the bias."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    (near_y, place_y), (near_x, place_x) = (pairs(axis) for axis in axes(problem, device))
    width, count = problem.width, problem.height * problem.width
    looks_up = device.type in LOOKS_UP
    near = (near_y[:, None, :, None] & near_x[None, :, None, :]).reshape(count, count) if looks_up else None
    table = None
    if looks_up and bias is not None:
        table = bias.detach()[:, place_y[:, None, :, None], place_x[None, :, None, :]].reshape(-1, count, count)

    def is_near(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if near is not None:
            return near[query, key]
        return near_y[query // width, key // width] & near_x[query % width, key % width]

    def add_bias(score: Tensor, _batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if table is not None:
            return score + table[head, query, key]
        assert bias is not None
        return score + bias[head, place_y[query // width, key // width], place_x[query % width, key % width]]

    block = 16 if looks_up else 128
    mask = create_block_mask(is_near, None, None, count, count, device=str(device), BLOCK_SIZE=block)
    score_mod = None if bias is None else add_bias
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(*maps: Tensor) -> Tensor:
        query, key, value = map(tokens, maps)
        return as_map(compiled(query, key, value, score_mod, mask, problem.scale), problem)

    return attend


def axes(problem: LocalProblem, device: torch.device) -> tuple[Neighbours, Neighbours]:
    """Return the neighbours along both axes."""
    border = "mask" if problem.border == "zeros" else problem.border
    y, x = (
        neighbours(length, problem.kernel_size, problem.dilation, border, problem.window_stride, False, device)
        for length in (problem.height, problem.width)
    )
    return y, x


def pairs(axis: Neighbours) -> tuple[Tensor, Tensor]:
    """Return which pixels of an axis are neighbours, (from, to), and where the bias of a pair is."""
    length, taps = axis.source.shape
    device = axis.source.device
    is_source = axis.source[:, :, None] == torch.arange(length, device=device)
    if axis.counts is not None:
        is_source &= axis.counts[:, :, None]
    place = axis.offset[:, None] + torch.arange(taps, device=device) + taps - 1
    return is_source.any(1), (is_source * place[:, :, None]).amax(1)


def natten(problem: LocalProblem, bias: Tensor | None) -> Iterator[Peer]:
    """Yield what an installed NATTEN has: until 0.17 with a bias and, in two ops, on a CPU; since 0.20 without."""

    def peer(name: str, make: Callable[[], Attend], heads_first: bool = False, bias: Tensor | None = None) -> Peer:
        return Peer("natten", name, make, heads_first, problem.taps, learned(bias))

    functional, why_not = natten_functional(problem)
    if functional is None:
        yield peer("NATTEN", lambda: refuse(why_not))
    elif not is_old(functional):
        name = "NATTEN" if bias is None else "NATTEN, no bias"
        yield peer(name, lambda: natten_fused(functional, problem, stride=problem.window_stride))
    elif problem.window_stride > 1:
        yield peer("NATTEN", lambda: refuse("it has no window stride before 0.20"))
    else:
        yield peer("NATTEN, two ops", lambda: natten_in_two(functional, problem, bias), heads_first=True, bias=bias)
        yield peer("NATTEN, fused", lambda: natten_fused(functional, problem, rpb=bias), bias=bias)


def natten_functional(problem: LocalProblem) -> tuple[ModuleType | None, str]:
    """Return ``natten.functional``, or why there is none for a problem."""
    if importlib.util.find_spec("natten") is None:
        return None, "not installed"
    try:
        functional = importlib.import_module("natten.functional")
    except Exception as error:  # what was compiled for another torch may raise anything
        return None, f"cannot be imported: {reason(error)}"
    if functional.__name__.split(".")[0] != "natten":
        return None, f"not installed, {functional.__name__} is in its place"
    if problem.border != "shift":
        return None, f"it has no border {problem.border}"
    return functional, ""


def is_old(functional: ModuleType) -> bool:
    """Tell whether NATTEN is one before 0.20, with the ops that make and apply an attention map."""
    return hasattr(functional, "na2d_qk")


def refuse(why: str) -> Attend:
    """Raise an error, which makes a contender absent."""
    raise ValueError(why)


def natten_fused(functional: ModuleType, problem: LocalProblem, **options: Any) -> Attend:
    """Return ``na2d``."""
    sizes = {"kernel_size": problem.kernel_size, "dilation": problem.dilation}
    return lambda *maps: functional.na2d(*maps, **sizes, scale=problem.scale, **options)


def natten_in_two(functional: ModuleType, problem: LocalProblem, bias: Tensor | None) -> Attend:
    """Return ``na2d_qk``, a softmax and ``na2d_av``."""
    sizes = {"kernel_size": problem.kernel_size, "dilation": problem.dilation}

    def attend(*maps: Tensor) -> Tensor:
        query, key, value = (image.permute(0, 3, 1, 2, 4) for image in maps)
        attn = functional.na2d_qk(query * problem.scale, key, **sizes, rpb=bias).softmax(-1)
        return functional.na2d_av(attn, value, **sizes).permute(0, 2, 3, 1, 4)

    return attend


def natten_logits(problem: LocalProblem, bias: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``na2d_qk`` of maps (B, H, W, heads, D).

    Raises:
        ValueError: There is none.
    """
    functional, why_not = natten_functional(problem)
    if functional is None or not is_old(functional):
        raise ValueError(why_not or "it has no logits since 0.20")
    sizes = {"kernel_size": problem.kernel_size, "dilation": problem.dilation}

    def logits(*maps: Tensor) -> Tensor:
        query, key = (image.permute(0, 3, 1, 2, 4) for image in maps)
        return functional.na2d_qk(query * problem.scale, key, **sizes, rpb=bias)

    return logits


def tokens(image: Tensor) -> Tensor:
    """Return a map (B, H, W, heads, D) as (B, heads, H·W, D)."""
    return image.flatten(1, 2).transpose(1, 2)


def as_map(tokens: Tensor, problem: LocalProblem) -> Tensor:
    """Return (B, heads, H·W, D) as a map (B, H, W, heads, D)."""
    return tokens.transpose(1, 2).unflatten(1, (problem.height, problem.width))


class PeerAttention(nn.Module):
    """A layer of such attention with the projections around it, (B, H, W, C) in and out."""

    def __init__(self, problem: LocalProblem, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = problem.heads, attend
        self.qkv = nn.Linear(problem.channels, 3 * problem.channels)
        self.proj = nn.Linear(problem.channels, problem.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(3)
        return self.proj(self.attend(query, key, value).flatten(-2))

"""Other people's attention over the K × K neighbourhood: FlexAttention and NATTEN."""

import importlib
import importlib.util
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .problem_elsa import ElsaProblem

# Maps query (B, H', W', heads, D), key and value (B, H, W, heads, D) to (B, H', W', heads, D).
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

NAMES = {"flex": "FlexAttention", "natten": "NATTEN"}


def flex(problem: ElsaProblem, device: torch.device) -> Attend:
    """Return compiled FlexAttention with a block mask of exactly the neighbours."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    height, width = problem.out_size
    reach, dilation, stride = problem.kernel_size // 2 * problem.dilation, problem.dilation, problem.stride

    def near(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down = key // problem.width - query // width * stride
        right = key % problem.width - query % width * stride
        inside = (down.abs() <= reach) & (right.abs() <= reach)
        return inside & (down % dilation == 0) & (right % dilation == 0)

    mask = create_block_mask(near, None, None, height * width, problem.height * problem.width, device=str(device))
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(*maps: Tensor) -> Tensor:
        query, key, value = (tokens.flatten(1, 2).transpose(1, 2) for tokens in maps)
        return compiled(query, key, value, block_mask=mask).transpose(1, 2).unflatten(1, (height, width))

    return attend


def natten(problem: ElsaProblem, device: torch.device) -> Attend:
    """Return NATTEN's neighbourhood attention, whose windows stay inside the map."""
    if importlib.util.find_spec("natten") is None:
        raise ModuleNotFoundError("not installed")
    if problem.stride > 1:
        raise ValueError("its stride means something else")
    na2d = importlib.import_module("natten").na2d
    return lambda query, key, value: na2d(query, key, value, kernel_size=problem.kernel_size, dilation=problem.dilation)


ATTENDS: dict[str, Callable[[ElsaProblem, torch.device], Attend]] = {"flex": flex, "natten": natten}


def attention_multiply_adds(problem: ElsaProblem) -> int:
    """Return those of a forward: two products per neighbour, channel and pixel."""
    return 2 * problem.batch * math.prod(problem.out_size) * problem.channels * problem.taps


class NeighbourAttention(nn.Module):
    """Self-attention over the neighbours with the projections around it, (B, H, W, C) in and out."""

    def __init__(self, channels: int, heads: int, attend: Attend, stride: int) -> None:
        super().__init__()
        self.heads, self.attend, self.stride = heads, attend, stride
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(3)
        if self.stride > 1:
            query = query[:, :: self.stride, :: self.stride]
        return self.proj(self.attend(query, key, value).flatten(-2))

"""What torch's FlopCounterMode counts of the ops, against counts made by hand."""

import subprocess
import sys

import elsa_ext
import pytest
import torch
from elsa_ext.ops import flops
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

BATCH, CHANNELS, HEADS, K, HEIGHT, WIDTH = 2, 6, 3, 3, 4, 5


def counted(function, *inputs: Tensor) -> int:
    """Multiply-adds of a call."""
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() // 2


def ghost_head_inputs(stride: int, matrices: str) -> list[Tensor | None]:
    value = torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)
    attn = torch.randn(BATCH, HEADS * K * K, HEIGHT // stride, WIDTH // stride)
    mul, add = (torch.randn(CHANNELS, K, K) if matrices in ("both", name) else None for name in ("mul", "add"))
    return [value, attn, mul, add]


# Per tap, channel and output pixel: the forward, then the backward, of value and of the others.
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("matrices", "forward", "backward"), [("both", 2, 2 + 4), ("mul", 2, 2 + 3), ("add", 2, 2 + 2), ("none", 1, 1 + 1)]
)
def test_ghost_head(matrices: str, forward: int, backward: int, stride: int) -> None:
    inputs = ghost_head_inputs(stride, matrices)
    taps = BATCH * CHANNELS * (HEIGHT // stride) * (WIDTH // stride) * K * K

    def call(*tensors: Tensor | None) -> Tensor:
        return elsa_ext.ghost_head(*tensors, kernel_size=K, stride=stride)

    assert counted(call, *inputs) == forward * taps
    for tensor in inputs:
        if tensor is not None:
            tensor.requires_grad_()
    assert counted(lambda: call(*inputs).sum().backward()) == (forward + backward) * taps


@pytest.mark.parametrize(
    ("matrices", "wanted", "backward"),
    [("both", 0, 2), ("both", 1, 2), ("both", 2, 2), ("both", 3, 1), ("add", 1, 1), ("add", 3, 1), ("none", 0, 1)],
)
def test_ghost_head_with_one_gradient(matrices: str, wanted: int, backward: int) -> None:
    inputs = ghost_head_inputs(1, matrices)
    inputs[wanted].requires_grad_()
    out = elsa_ext.ghost_head(*inputs, kernel_size=K)
    assert counted(lambda: out.sum().backward()) == backward * BATCH * CHANNELS * HEIGHT * WIDTH * K * K


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("proj_groups", [1, 3])
def test_hadamard_attention(stride: int, proj_groups: int) -> None:
    group_width = 2
    query, key = (torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH, requires_grad=True) for _ in range(2))
    conv = torch.randn(CHANNELS, group_width, K, K, requires_grad=True)
    proj = torch.randn(HEADS * K * K, CHANNELS // proj_groups, requires_grad=True)
    pixels = BATCH * (HEIGHT // stride) * (WIDTH // stride)
    forward = pixels * (CHANNELS * group_width * K * K + HEADS * K * K * CHANNELS // proj_groups)

    def call() -> Tensor:
        return elsa_ext.hadamard_attention(
            query, key, conv, None, proj, None, heads=HEADS, stride=stride, proj_groups=proj_groups
        )

    assert counted(call) == forward
    assert counted(lambda: call().sum().backward()) == 3 * forward


def test_counts_by_module() -> None:
    layer = elsa_ext.nn.ELSA(8, 2, dim_qk=4, kernel_size=3, group_width=2, lam=0)
    x = torch.randn(2, 5, 7, 8)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    pixels = 2 * 5 * 7
    projections = 8 * (4 + 4 + 8) + 8 * 8
    ops = 4 * 2 * 9 + 2 * 9 * 4 + 2 * 8 * 9
    assert counter.get_flop_counts()["ELSA"] == counter.get_flop_counts()["Global"]
    assert counter.get_total_flops() == 2 * pixels * (projections + ops)


@pytest.mark.parametrize(
    "changed", [{}, {"stride": 2}, {"lam": 0}, {"lam": 0, "gamma": 0}, {"dim_v": 12}, {"groups": 2}]
)
def test_layer(changed: dict[str, int]) -> None:
    layer = elsa_ext.nn.ELSA(8, 2, dim_qk=4, kernel_size=3, group_width=2, **changed)
    x = torch.randn(2, 5, 7, 8)
    assert flops.layer(layer, x.shape) == counted(layer, x)


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize("matrices", ["both", "mul", "add", "none"])
def test_handles_of_fvcore(matrices: str) -> None:
    value, attn, mul, add = ghost_head_inputs(2, matrices)
    conv, proj = torch.randn(CHANNELS, 2, K, K), torch.randn(HEADS * K * K, CHANNELS)

    def call(value: Tensor, attn: Tensor, conv: Tensor, proj: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        ghost = dict(zip(names, given, strict=True))
        made = elsa_ext.hadamard_attention(value, value, conv, None, proj, None, heads=HEADS, stride=2)
        return made, elsa_ext.ghost_head(value, attn, **ghost, kernel_size=K, stride=2)

    names = [name for name, matrix in (("ghost_mul", mul), ("ghost_add", add)) if matrix is not None]
    inputs = (value, attn, conv, proj, *(matrix for matrix in (mul, add) if matrix is not None))
    handles = flops.fvcore_handles()
    graph = torch.jit.trace(call, inputs).graph
    counts = {
        node.kind(): handles[node.kind()](list(node.inputs()), list(node.outputs()))
        for node in graph.nodes()
        if node.kind() in handles
    }
    pixels = BATCH * (HEIGHT // 2) * (WIDTH // 2)
    assert counts == {
        "elsa::hadamard_attention": pixels * (conv.numel() + proj.numel()),
        "elsa::ghost_head": (2 if names else 1) * pixels * CHANNELS * K * K,
    }


@pytest.mark.parametrize("first", ["elsa_ext", "torch.utils.flop_counter"])
def test_importing_elsa_ext_is_enough(first: str) -> None:
    code = f"""
import {first}
import elsa_ext, torch
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    elsa_ext.ghost_head(torch.ones(1, 1, 3, 3), torch.ones(1, 9, 3, 3), kernel_size=3)
print(counter.get_total_flops())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [str(2 * 9 * 9)]


@pytest.mark.parametrize(
    ("wanted", "convs", "projs"),
    [
        ("query", 1, 1),
        ("key", 1, 1),
        ("conv_weight", 1, 1),
        ("conv_bias", 0, 1),
        ("proj_weight", 0, 1),
        ("proj_bias", 0, 0),
        ("query key", 1, 1),
        ("query conv_weight proj_weight", 2, 2),
    ],
)
def test_hadamard_attention_backward_counts_what_is_asked_for(wanted: str, convs: int, projs: int) -> None:
    shapes = {
        "query": (BATCH, CHANNELS, HEIGHT, WIDTH),
        "key": (BATCH, CHANNELS, HEIGHT, WIDTH),
        "conv_weight": (CHANNELS, 2, K, K),
        "conv_bias": (CHANNELS,),
        "proj_weight": (HEADS * K * K, CHANNELS),
        "proj_bias": (HEADS * K * K,),
    }
    tensors = {name: torch.randn(shape, requires_grad=name in wanted.split()) for name, shape in shapes.items()}
    out = elsa_ext.hadamard_attention(*tensors.values(), heads=HEADS)
    pixels = BATCH * HEIGHT * WIDTH
    conv, proj = tensors["conv_weight"].numel(), tensors["proj_weight"].numel()
    assert counted(lambda: out.sum().backward()) == pixels * (convs * conv + projs * proj)


def test_the_counter_changes_nothing_of_what_it_counts() -> None:
    """It hooks every module, for their names: the op that answers without it has to answer under it."""
    layer = elsa_ext.nn.ELSA(8, 2, kernel_size=3)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 4, 4, 8)).sum().backward()
    ops = {str(op) for op in counter.get_flop_counts()["ELSA"]}
    assert {"elsa.hadamard_attention", "elsa.hadamard_attention_backward"} <= ops
    assert "aten.convolution" not in ops

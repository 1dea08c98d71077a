"""What torch's FlopCounterMode counts of the ops, against counts made by hand."""

import subprocess
import sys
from collections.abc import Callable

import elsa_ext
import pytest
import torch
from elsa_ext.ops import flops
from ops.cases import make
from ops.checks import function_of
from ops.registry import every
from ops.spec import Count
from torch.utils.flop_counter import FlopCounterMode


def counted(function: Callable[[], object]) -> int:
    """Multiply-adds of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("count", every("counts"), ids=str)
def test_count(count: Count) -> None:
    function, leaves = function_of(count.case, make(count.case, torch.float32), count.wanted)
    if not count.wanted:
        assert counted(function) == count.multiply_adds
    else:
        out = function(*leaves)
        assert counted(lambda: out.sum().backward()) == count.multiply_adds


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize("count", [count for count in every("counts") if not count.wanted], ids=str)
def test_handles_of_fvcore(count: Count) -> None:
    function, leaves = function_of(count.case, make(count.case, torch.float32), count.case.given)
    handles = flops.fvcore_handles()
    nodes = [node for node in torch.jit.trace(function, leaves).graph.nodes() if node.kind() in handles]
    assert [node.kind() for node in nodes] == [f"elsa::{count.case.op}"]
    assert handles[nodes[0].kind()](list(nodes[0].inputs()), list(nodes[0].outputs())) == count.multiply_adds


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
    assert flops.layer(layer, x.shape) == counted(lambda: layer(x))


@pytest.mark.thorough
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


def test_the_counter_changes_nothing_of_what_it_counts() -> None:
    """It hooks every module, for their names: the op that answers without it has to answer under it."""
    layer = elsa_ext.nn.ELSA(8, 2, kernel_size=3)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 4, 4, 8)).sum().backward()
    ops = {str(op) for op in counter.get_flop_counts()["ELSA"]}
    assert {"elsa.hadamard_attention", "elsa.hadamard_attention_backward"} <= ops
    assert "aten.convolution" not in ops

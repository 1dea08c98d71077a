"""``elsa-ext bench module --module family``: the members, and that what they are compared with computes the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from elsa_ext.cli.bench.module_family import DepthwiseLayer, contenders, member
from elsa_ext.cli.bench.problem_family import PRESETS, FamilyProblem

from .conftest import Result
from .test_bench import by_row, load

Command = Callable[..., Result]
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_floors")
SMALL = ("--module", "family", "--size", "6x9", "--channels", "8", "--heads", "2", "--kernel-size", "3", "--batch", "2")


def problem(**changes: Any) -> FamilyProblem:
    """A small layer."""
    sizes: dict[str, Any] = dict(name="small", batch=2, height=6, width=9, channels=32, heads=2, kernel_size=3)
    return FamilyProblem(**sizes | dict(dtype="float32", layout="channels_last") | changes)


@pytest.mark.parametrize("region", ["neighborhood", "window"])
def test_the_convolution_is_the_same_layer(region: str) -> None:
    small = problem(member=f"rb none {region} heads=C")
    layer: Any = member(small)
    peer = DepthwiseLayer(small, windows=region == "window")
    peer.value.load_state_dict(layer.qkv.state_dict())
    peer.proj.load_state_dict(layer.proj.state_dict())
    peer.conv.weight.data.copy_(layer.r_bias.detach().unsqueeze(1))
    x = torch.randn(2, 6, 9, 32)
    torch.testing.assert_close(peer(x), layer(x))


def test_window_attention_is_shifted_as_timms() -> None:
    assert member(problem(member="qk+rb softmax window", kernel_size=7)).shift == [3, 3]
    assert member(problem(member="rb none window heads=C")).shift == [0, 0]


@pytest.mark.thorough
@pytest.mark.parametrize("name", PRESETS)
def test_every_member_has_one_to_be_compared_with(name: str) -> None:
    small = problem(member=PRESETS[name]["member"], kernel_size=PRESETS[name]["kernel_size"], height=7, width=7)
    keys = [contender.key for contender in contenders(small, CPU, True, ("formula", "timm", "conv2d", "flex"))]
    expected = {"window": "timm", "neighborhood": "flex", "depthwise": "conv2d", "depthwise-window": "conv2d"}
    assert keys == ["elsa_ext", "formula", *([expected[name]] if name in expected else [])]


@pytest.mark.thorough
def test_run(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "family.json"
    arguments = ("--member", "rb none window heads=C", "--repeats", "2", "--device", "cpu", "--backprop")
    result = command("bench", "module", *SMALL, *arguments, "--baselines", "formula", "conv2d", "--json", path)
    assert (result.code, result.err, "absent" in result.out) == (0, "", False)
    assert "rb none window heads=C, 2 x 8 x 6 x 9, K = 3" in result.out
    (comparison,) = load(path)["comparisons"]
    assert {key for key, _ in by_row(comparison)} == {"elsa_ext", "formula", "conv2d"}


@pytest.mark.parametrize("wrong", ["qk softmax", "involution", "hadamard softmax window"])
def test_a_member_that_is_not_there(wrong: str, command: Command) -> None:
    result = command("bench", "module", *SMALL, "--member", wrong)
    assert (result.code, result.out.count("\n")) == (2, 0)
    assert f"--member {wrong!r}: LocalSpec: " in result.err

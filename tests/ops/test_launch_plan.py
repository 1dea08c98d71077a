"""What a call would get, and that results do not depend on it."""

from typing import Any

import pytest
import torch
from elsa_ext import launch_plan
from ops.cases import make
from ops.checks import call
from ops.test_hadamard_attention import HadamardAttention


def plan(**shape: Any) -> dict[str, int | str]:
    """The plan of ``hadamard_attention`` for a stage of ELSA-Swin, but for what ``shape`` says."""
    stage = {"batch": 8, "channels": 64, "height": 56, "width": 56, "heads": 3, "kernel_size": 7, "groups": 16}
    return launch_plan("hadamard_attention", **stage | shape)


def ghost_head_plan(**shape: Any) -> dict[str, int | str]:
    """The plan of ``ghost_head`` for a stage of ELSA-Swin, but for what ``shape`` says."""
    stage = {"batch": 8, "channels": 96, "height": 56, "width": 56, "heads": 3, "kernel_size": 7}
    return launch_plan("ghost_head", **stage | shape)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_published_kernel_sizes_are_compiled(kernel_size: int) -> None:
    assert plan(kernel_size=kernel_size)["convolution"] == f"direct, K = {kernel_size} compiled"
    gather = ghost_head_plan(kernel_size=kernel_size)["gather"]
    assert gather == f"K = {kernel_size} compiled, for tiles that all taps reach"


@pytest.mark.parametrize("other", [{"kernel_size": 9}, {"stride": 2}], ids=str)
def test_a_gather_that_takes_the_loop_for_any_size(other: dict[str, Any]) -> None:
    assert ghost_head_plan(**other)["gather"] == "any K"


@pytest.mark.parametrize("border", ["shift", "circular"])
def test_a_border_of_ghost_head_takes_the_sums_of_local_attention(border: str) -> None:
    assert ghost_head_plan(border=border)["sums"] == "K = 7 compiled, for pixels whose taps are neighbours"
    assert ghost_head_plan(border=border, stride=2)["gather"] == "any neighbours, a row of pixels at a time"
    assert "gather" not in ghost_head_plan(kernel_size=(1, 7)), "unequal sizes"
    assert ghost_head_plan(border="mask") == ghost_head_plan(), "a tap beyond the map finds zero"


def neighborhood_plan(**shape: Any) -> dict[str, int | str]:
    """The plan of ``neighborhood_attention`` for a stage of Swin, but for what ``shape`` says."""
    stage = {"batch": 8, "channels": 96, "height": 56, "width": 56, "heads": 3, "kernel_size": 7, "border": "shift"}
    return launch_plan("neighborhood_attention", **stage | shape)


def test_the_backward_of_neighborhood_attention_has_tiles_of_its_own() -> None:
    stage = neighborhood_plan()
    assert (stage["tile rows"], stage["strip rows"]) == (28, 14)
    assert (stage["backward tile rows"], stage["backward strip rows"]) == (14, 7)
    assert stage["backward units"] == 2 * int(stage["units"])
    assert stage["backward phases"] == 4, "two colours of rows and two of columns"


def test_a_dilation_that_a_circle_wraps() -> None:
    circle = {"height": 12, "width": 12, "border": "circular"}
    assert neighborhood_plan(dilation=13, **circle) == neighborhood_plan(dilation=1, **circle)
    assert neighborhood_plan(dilation=24, **circle)["maps of neighbours"] == 144


def test_scratch_of_ghost_head_does_not_grow_with_the_map() -> None:
    small, large = ghost_head_plan(), ghost_head_plan(height=560, width=560)
    assert large["window bytes per thread"] == small["window bytes per thread"]
    assert large["partial sums bytes"] == small["partial sums bytes"]
    assert large["units"] == 100 * int(small["units"])


@pytest.mark.parametrize("other", [{"kernel_size": 9}, {"dilation": 2}, {"dtype": "float64"}], ids=str)
def test_everything_else_takes_the_loop_for_any_size(other: dict[str, Any]) -> None:
    assert plan(**other)["convolution"] == "direct, any K"


def test_scratch_does_not_grow_with_the_map() -> None:
    small, large = plan(height=72, width=56), plan(height=720, width=560)
    for name in ("forward scratch bytes per thread", "backward scratch bytes per thread", "partial sums bytes"):
        assert large[name] == small[name], name
    assert large["tiles"] == 100 * int(small["tiles"])


def test_a_sample_alone_is_cut_finer_and_has_the_same_bits() -> None:
    case = HadamardAttention(batch=8, channels=16, groups=4, heads=2, kernel_size=5, height=24, width=17)
    rows = [
        plan(batch=batch, channels=16, groups=4, heads=2, kernel_size=5, height=24, width=17)["tile rows"]
        for batch in (1, 8)
    ]
    assert rows[0] < rows[1]
    tensors = make(case, torch.float32, "cpu")
    together = call(case, tensors)
    for sample in range(case.batch):
        alone = tensors | {name: tensors[name][sample : sample + 1] for name in ("query", "key")}
        assert torch.equal(call(case, alone)[0], together[sample])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"groups": 5}, "groups that divide channels"), ({"stride": 0}, "stride"), ({"dtype": "int8"}, "dtype")],
    ids=str,
)
def test_a_shape_that_the_op_would_not_take(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 5}, "heads that divide channels"),
        ({"border": "reflect"}, "border"),
        ({"border": "shift", "dilation": 9}, "to fit in the map"),
        ({"stride": 0}, "stride"),
    ],
    ids=str,
)
def test_a_shape_that_ghost_head_would_not_take(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ghost_head_plan(**wrong)


def test_a_size_that_is_missing_or_unknown_or_no_integer() -> None:
    with pytest.raises(ValueError, match="launch_plan: ghost_head: batch is missing"):
        launch_plan("ghost_head", channels=4)
    with pytest.raises(ValueError, match="ghost_head: no size or option has the name groups"):
        ghost_head_plan(groups=4)
    with pytest.raises(TypeError, match=r"ghost_head: height must be an integer, got 5\.5"):
        ghost_head_plan(height=5.5)


def test_unknown_op() -> None:
    with pytest.raises(ValueError, match="no op has the name conv2d"):
        launch_plan("conv2d")

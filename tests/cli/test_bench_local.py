"""``elsa-ext bench`` of neighbourhood attention: its problems, what is counted, and that the others do the same."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import elsa_ext
import pytest
import torch
from elsa_ext.cli.bench import local_peers, op_local
from elsa_ext.cli.bench.contenders import Contender
from elsa_ext.cli.bench.problem_local import LocalProblem
from elsa_ext.cli.bench.problems import problems
from elsa_ext.cli.parser import build_parser
from torch import Tensor

from .conftest import Result
from .test_bench import by_row, load
from .test_errors import assert_refused

Command = Callable[..., Result]
CPU = torch.device("cpu")
SMALL = ("--size", "6x5", "--channels", "8", "--heads", "2", "--kernel-size", "3", "--batch", "2", "--repeats", "1")
SMALL += ("--device", "cpu")
PIXELS, TAPS = 2 * 6 * 5, 9
pytestmark = pytest.mark.usefixtures("small_floors")


def parsed(*arguments: str) -> list[LocalProblem]:
    return problems(LocalProblem, build_parser().parse_args(["bench", "op", *arguments]))


def test_presets() -> None:
    found = {problem.name: problem for problem in parsed("--preset", "all", "--batch", "3")}
    assert [found[f"swin-t-{stage}"].heads for stage in (1, 2, 3)] == [3, 6, 12]
    assert found["swin-t-2"].shape == (3, 192, 28, 28)
    # DiNAT-Mini: 64 channels and 2 heads, twice as many from stage to stage; the far layers just fit.
    for stage in (1, 2, 3, 4):
        near = found[f"dinat-mini-{stage}"]
        assert (near.channels, near.heads, near.height) == (32 << stage, 1 << stage, 112 >> stage)
        assert (near.kernel_size, near.dilation, near.border, near.bias) == (7, 1, "shift", "relative")
    far = [found[f"dinat-mini-{stage}-far"] for stage in (1, 2, 3)]
    assert [problem.dilation for problem in far] == [8, 4, 2]
    assert all(problem.kernel_size * problem.dilation == problem.height for problem in far)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--op", "neighborhood_attention", "--stride", "2"], ["--stride", "neighbourhood attention"]),
        (["--op", "neighborhood_logits", "--group-width", "2"], ["--group-width", "neighbourhood attention"]),
        (["--border", "mask"], ["--border", "ELSA"]),
        (["--op", "neighborhood_attention", "ghost_head", "--bias", "none"], ["--bias", "ELSA"]),
        (["--preset", "dinat-mini-1"], ["dinat-mini-1", "ELSA", "volo-d1"]),
        (["--op", "neighborhood_attention", "--preset", "volo-d1"], ["volo-d1", "dinat-mini-1"]),
        (["--op", "neighborhood_attention", "--dilation", "9"], ["63", "56 x 56", "shift"]),
        (["--op", "neighborhood_attention", "--window-stride", "8"], ["--window-stride 8", "7"]),
        (["--op", "neighborhood_attention", "--window-stride", "2", "--border", "mask"], ["--window-stride 2", "mask"]),
        (["--baselines", "sdpa"], ["--baselines sdpa", "ghost_head", "depthwise"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_not_for_an_op(command: Command, arguments: list[str], parts: list[str]) -> None:
    assert_refused(command("bench", "op", *arguments), "elsa-ext bench", *parts)


def test_counts(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "op.json"
    baselines = ("unfused", "zeros", "sdpa")
    ops = ("neighborhood_attention", "neighborhood_logits")
    result = command("bench", "op", "--op", *ops, *SMALL, "--backprop", "--baselines", *baselines, "--json", path)
    assert (result.code, result.err) == (0, "")
    attention, logits = load(path)["comparisons"]
    assert attention["problem"]["border"] == "shift" and attention["title"].count("relative bias") == 1
    rows, both = by_row(attention), "forward + backward"
    work, bias = PIXELS * TAPS * 8, PIXELS * TAPS * 2
    for contender in ("elsa_ext", "zeros", "unfused"):
        assert rows[contender, "forward"]["multiply_adds"] == 2 * work
    assert rows["elsa_ext", both]["multiply_adds"] == rows["zeros", both]["multiply_adds"] == 7 * work + bias
    assert rows["unfused", both]["multiply_adds"] == 6 * work + bias  # keeps the logits
    assert rows["sdpa", "forward"]["multiply_adds"] == 2 * work * 30 // TAPS
    assert rows["elsa_ext", "forward"]["bytes"] == 4 * (4 * PIXELS * 8 + 2 * 25)
    assert rows["unfused", "forward"]["peak_bytes"] >= 4 * 2 * PIXELS * TAPS * 2  # the logits and their softmax
    assert rows["elsa_ext", "forward"]["peak_bytes"] == 4 * PIXELS * 8
    rows = by_row(logits)
    assert set(rows) == {(c, d) for c in ("elsa_ext", "zeros") for d in ("forward", both)}
    assert rows["elsa_ext", both]["multiply_adds"] == 3 * work + bias


def test_summary_for_a_page(small_run: dict[str, Any]) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "summary.py"
    lines = runpy.run_path(str(path))["lines"](small_run)
    found = {cells[0].strip(): cells[1:] for line in lines if len(cells := line.strip("|").split("|")) == 3}
    rows = [by_row(comparison) for comparison in small_run["comparisons"]]
    expected = [f"{row['formula', 'forward + backward']['ratio']:,.3g} ×" for row in rows]
    assert all(text in cell for text, cell in zip(expected, found["formula"], strict=True))
    ratios = [
        row["elsa_ext", "forward + backward"]["median_ms"] / row["elsa_ext", "forward"]["median_ms"] for row in rows
    ]
    assert [float(cell) for cell in found["forward + backward over forward"]] == pytest.approx(ratios, abs=0.01)
    assert "elsa_ext beyond inputs and results" in " ".join(found)


def function_of(contender: Contender, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Return what a contender times, and its leaves."""
    seen: list[Any] = []
    monkeypatch.setattr(op_local, "rated", lambda function, leaves, *_: seen.extend((function, leaves)) or {})
    contender.build()
    return seen[0], seen[1]


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("bias", ["relative", "none"])
def test_others_give_the_same(layout: str, bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = parsed(*SMALL, "--layout", layout, "--bias", bias, "--border", "zeros", "--kernel-size", "4")
    ours, *others = op_local.neighborhood_attention(problem, CPU, False, ("unfold", "unfused"))
    assert [contender.key for contender in others] == ["unfold", "unfused"]
    function, leaves = function_of(ours, monkeypatch)
    expected = function(*leaves)
    for contender in others:
        other, _ = function_of(contender, monkeypatch)
        torch.testing.assert_close(other(*leaves), expected)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        ("--border", "shift", "--dilation", "2", "--size", "7x6"),
        ("--border", "shift", "--window-stride", "2"),
        ("--border", "mask", "--bias", "none"),
        ("--border", "circular"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("device", ["cpu", "other"])
def test_flex_gives_the_same(options: tuple[str, ...], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    (problem,) = parsed(*SMALL, "--channels", "32", *options)
    flex = next(peer for peer in local_peers.peers(problem, bias_like(problem), CPU) if peer.key == "flex")
    if device == "other":
        monkeypatch.setattr(local_peers, "LOOKS_UP", ())
    assert_same_as_ours(flex, problem)


def bias_like(problem: LocalProblem) -> Tensor | None:
    return torch.randn(problem.bias_shape, generator=torch.Generator().manual_seed(0)) if problem.bias_shape else None


def assert_same_as_ours(peer: local_peers.Peer, problem: LocalProblem) -> None:
    """Assert that attention of others gives what ours does, over maps with the heads apart."""
    query, key, value = op_local.maps_of_heads(problem, 3, torch.empty(0), peer.heads_first)
    with torch.no_grad():
        out = peer.make()(query, key, value).flatten(3).permute(0, 3, 1, 2)
        maps = (image.flatten(3).permute(0, 3, 1, 2) for image in (query, key, value))
        torch.testing.assert_close(out, op_local.attend(problem)(*maps, *peer.learned))


def heads_apart(image: Tensor, heads: int) -> Tensor:
    """Return a map as (B, heads, H, W, C/heads)."""
    return image.unflatten(1, (heads, -1)).permute(0, 1, 3, 4, 2)


def heads_together(image: Tensor) -> Tensor:
    """Return (B, heads, H, W, D) as a map."""
    return image.permute(0, 1, 4, 2, 3).flatten(1, 2)


def na2d_qk(query: Tensor, key: Tensor, kernel_size: int, dilation: int, rpb: Tensor | None = None) -> Tensor:
    """Return the logits, as NATTEN's op of this name does."""
    heads, options = query.shape[1], {"kernel_size": kernel_size, "dilation": dilation, "border": "shift"}
    maps = map(heads_together, (query, key))
    return heads_apart(elsa_ext.neighborhood_logits(*maps, rpb, heads=heads, **options), heads)


def na2d_av(attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Aggregate, as NATTEN's op of this name does."""
    options = {"kernel_size": kernel_size, "dilation": dilation, "border": "shift"}
    return heads_apart(elsa_ext.ghost_head(heads_together(value), heads_together(attn), **options), attn.shape[1])


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int,
    stride: int = 1,
    dilation: int = 1,
    scale: float = 1.0,
    rpb: Tensor | None = None,
) -> Tensor:
    """Attend, as NATTEN's op of this name does."""
    maps = (image.permute(0, 3, 4, 1, 2).flatten(1, 2) for image in (query, key, value))
    options = {"kernel_size": kernel_size, "dilation": dilation, "window_stride": stride, "border": "shift"}
    out = elsa_ext.neighborhood_attention(*maps, rpb, heads=query.shape[3], scale=scale, **options)
    return heads_apart(out, query.shape[3]).permute(0, 2, 3, 1, 4)


@pytest.fixture
def natten(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The functions of a NATTEN, none yet."""
    package, functional = ModuleType("natten"), ModuleType("natten.functional")
    package.__spec__ = functional.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "natten", package)
    monkeypatch.setitem(sys.modules, "natten.functional", functional)
    return functional


def test_old_natten(natten: ModuleType) -> None:
    (problem,) = parsed(*SMALL, "--dilation", "2", "--size", "7x6")
    natten.na2d, natten.na2d_qk, natten.na2d_av = na2d, na2d_qk, na2d_av
    in_two, fused = local_peers.natten(problem, bias_like(problem))
    assert (in_two.name, fused.name) == ("NATTEN, two ops", "NATTEN, fused")
    assert_same_as_ours(in_two, problem)
    assert_same_as_ours(fused, problem)
    logits = local_peers.natten_logits(problem, bias_like(problem))
    assert logits(*op_local.maps_of_heads(problem, 2, torch.empty(0), True)).shape == (2, 2, 7, 6, 9)


def test_new_natten(natten: ModuleType) -> None:
    (problem,) = parsed(*SMALL, "--window-stride", "2")
    natten.na2d = na2d
    (peer,) = local_peers.natten(problem, bias_like(problem))
    assert (peer.name, peer.learned) == ("NATTEN, no bias", ())
    assert_same_as_ours(peer, problem)
    with pytest.raises(ValueError, match=r"no logits since 0\.20"):
        local_peers.natten_logits(problem, None)


def test_natten_that_cannot_run(natten: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (peer,) = local_peers.natten(parsed(*SMALL, "--border", "mask")[0], None)
    with pytest.raises(ValueError, match="no border mask"):
        peer.make()
    natten.na2d_qk = na2d_qk
    (peer,) = local_peers.natten(parsed(*SMALL, "--window-stride", "2")[0], None)
    with pytest.raises(ValueError, match="no window stride"):
        peer.make()
    natten.__name__ = "elsa_ext.compat.natten.functional"
    (peer,) = local_peers.natten(parsed(*SMALL)[0], None)
    with pytest.raises(ValueError, match=r"not installed, elsa_ext\.compat\.natten\.functional"):
        peer.make()
    monkeypatch.setitem(sys.modules, "natten.functional", None)
    (peer,) = local_peers.natten(parsed(*SMALL)[0], None)
    with pytest.raises(ValueError, match="cannot be imported: "):
        peer.make()


@pytest.mark.thorough
def test_module(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "module.json"
    arguments = ("--module", "NeighborhoodAttention", *SMALL, "--backprop", "--baselines", "formula", "timm", "sdpa")
    result = command("bench", "module", *arguments, "--json", path)
    assert (result.code, result.err, "absent" in result.out) == (0, "", False)
    (comparison,) = load(path)["comparisons"]
    rows, both = by_row(comparison), "forward + backward"
    assert set(rows) == {(c, d) for c in ("elsa_ext", "formula", "timm", "sdpa") for d in ("forward", both)}
    assert rows["timm", both]["name"] == "timm window attention"
    projections, work = 4 * PIXELS * 8**2, PIXELS * TAPS * 8
    assert rows["elsa_ext", "forward"]["multiply_adds"] == projections + 2 * work
    assert rows["elsa_ext", both]["multiply_adds"] == 3 * projections + 7 * work + PIXELS * TAPS * 2
    assert rows["sdpa", "forward"]["multiply_adds"] == projections + 2 * work * 30 // TAPS

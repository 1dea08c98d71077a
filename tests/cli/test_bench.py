"""``elsa-ext bench``: what it counts, writes, compares and refuses. No test asserts a time."""

import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import elsa_ext
import numpy as np
import pytest
import torch
from elsa_ext.cli.bench import command as bench_command
from elsa_ext.cli.bench import measure, neighbours, op
from elsa_ext.cli.bench.compare import Earlier
from elsa_ext.cli.bench.contenders import Comparison, Contender, Task
from elsa_ext.cli.bench.measure import Entrant, Measured
from elsa_ext.cli.bench.memory import peak_memory
from elsa_ext.cli.bench.model import training_step
from elsa_ext.cli.bench.problems import PRESETS, problems
from elsa_ext.cli.bench.results import machine, new_run, quartiles, summarise, write
from elsa_ext.cli.parser import build_parser
from PIL import Image
from torch import Tensor

from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]
CPU = torch.device("cpu")
SMALL = (
    *("--size", "6x5", "--channels", "8", "--heads", "2", "--kernel-size", "3", "--group-width", "2"),
    *("--batch", "2", "--repeats", "2", "--device", "cpu"),
)
PIXELS, TAPS = 2 * 6 * 5, 9


@pytest.fixture(autouse=True)
def _small_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floors that take no time: nothing here depends on how well they are measured."""
    monkeypatch.setattr(measure, "FLOORS", {"cpu": (64, 2**16)})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of results that tests start from."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def small_run(command: Command, runs: Path) -> dict[str, Any]:
    """The record of both ops on a small map, measured once."""
    path = runs / "op.json"
    if not path.exists():
        baselines = ("formula", "depthwise", "natten")
        result = command("bench", "op", *SMALL, "--backprop", "--baselines", *baselines, "--json", path)
        assert (result.code, result.err) == (0, "")
        (runs / "op.txt").write_text(result.out)
    return json.loads(path.read_text())


def by_row(comparison: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["contender"], row["direction"]): row for row in comparison["rows"]}


def test_op_counts(small_run: dict[str, Any]) -> None:
    ghost, hadamard = small_run["comparisons"]
    assert (ghost["problem"]["op"], hadamard["problem"]["op"]) == ("ghost_head", "hadamard_attention")
    both = "forward + backward"
    # ghost_head with ghost_add alone: 2 a tap, and 2 + 2 in the backward.
    rows = by_row(ghost)
    for contender in ("elsa_ext", "formula"):
        assert rows[contender, "forward"]["multiply_adds"] == 2 * PIXELS * 8 * TAPS
        assert rows[contender, both]["multiply_adds"] == 6 * PIXELS * 8 * TAPS
    inputs, out = 4 * (PIXELS * 8 + PIXELS * 2 * TAPS + 8 * TAPS), 4 * PIXELS * 8
    assert rows["elsa_ext", "forward"]["bytes"] == inputs + out
    assert rows["elsa_ext", both]["bytes"] == 3 * inputs + 2 * out
    assert rows["depthwise", "forward"]["multiply_adds"] == PIXELS * 8 * TAPS
    assert rows["depthwise", both]["multiply_adds"] == 3 * PIXELS * 8 * TAPS
    assert rows["elsa_ext", "forward"]["peak_bytes"] == out  # the op takes no scratch
    # hadamard_attention: 8 // 3 * 2 = 4 channels of query, in groups of 2.
    rows = by_row(hadamard)
    weights = 4 * 2 * TAPS + 2 * TAPS * 4
    assert rows["elsa_ext", "forward"]["multiply_adds"] == PIXELS * weights
    assert rows["formula", both]["multiply_adds"] == 3 * PIXELS * weights
    inputs, out = 4 * (2 * PIXELS * 4 + weights + 4 + 2 * TAPS), 4 * PIXELS * 2 * TAPS
    assert rows["elsa_ext", both]["bytes"] == 3 * (inputs + out)


def test_op_rows(small_run: dict[str, Any]) -> None:
    for comparison in small_run["comparisons"]:
        rows, floors = by_row(comparison), comparison["floors"]
        assert len(rows) == len(comparison["rows"])  # of depthwise the faster layout alone
        assert set(rows) == {
            (contender, direction)
            for contender in ("elsa_ext", "formula", "depthwise")
            for direction in ("forward", "forward + backward")
        }
        for (contender, direction), row in rows.items():
            median = statistics.median(row["samples_ms"])
            assert row["rounds"] == len(row["samples_ms"]) == 2
            assert row["median_ms"] == pytest.approx(median, rel=1e-3)
            assert row["iqr_ms"] == pytest.approx(abs(row["samples_ms"][0] - row["samples_ms"][1]) / 2, abs=1e-5)
            assert row["gfma_per_s"] == pytest.approx(row["multiply_adds"] / row["median_ms"] / 1e6)
            assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["median_ms"] / 1e6)
            floor = max(row["gfma_per_s"] / floors["gfma_per_s"], row["gb_per_s"] / floors["gb_per_s"])
            assert row["percent_of_floor"] == pytest.approx(100 * floor)
            assert row["ratio"] == pytest.approx(row["median_ms"] / rows["elsa_ext", direction]["median_ms"])
            assert row["ours"] == (contender == "elsa_ext")
        assert rows["depthwise", "forward"]["name"].startswith("oneDNN depthwise, ")
        assert [absent["reason"] for absent in comparison["absent"]] == ["not installed"]


def test_machine(small_run: dict[str, Any], runs: Path) -> None:
    machine = small_run["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["elsa_ext"] == elsa_ext.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu_capability"] == elsa_ext.build_info()["cpu_capability"]
    assert small_run["options"] == {
        "repeats": 2,
        "backprop": True,
        "baselines": ["formula", "depthwise", "natten"],
    }
    out = (runs / "op.txt").read_text()
    for part in (machine["cpu"], f"{machine['threads']} threads", machine["cpu_capability"], torch.__version__):
        assert part in out[: out.index("ghost_head")]
    assert out.count("absent: NATTEN (not installed)") == 2
    assert "GFMA/s" in out and "peak MiB" in out
    assert max(map(len, out.splitlines())) <= 140


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("op_name", ["ghost_head", "hadamard_attention"])
def test_tensors(op_name: str, dtype: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = getattr(elsa_ext, op_name)
    monkeypatch.setattr(elsa_ext, op_name, lambda *args, **options: seen.extend(args) or original(*args, **options))
    arguments = ["bench", "op", *SMALL, "--dtype", dtype, "--layout", layout, "--matrices", "both", "--stride", "2"]
    problem = problems(build_parser().parse_args(arguments))[0]
    ours = next(iter(op.OPS[op_name](problem, CPU, False, ())))
    ours.build()["forward"].call()
    maps = seen[:2]
    format = torch.contiguous_format if layout == "contiguous" else torch.channels_last
    assert all(tensor.is_contiguous(memory_format=format) for tensor in maps)
    assert all(tensor.dtype == getattr(torch, dtype) for tensor in seen)
    if op_name == "ghost_head":
        value, attn, ghost_mul, ghost_add = seen[:4]
        assert (value.shape, attn.shape) == ((2, 8, 6, 5), (2, 18, 3, 2))
        assert ghost_mul.shape == ghost_add.shape == (8, 3, 3)
        torch.testing.assert_close(
            attn.unflatten(1, (2, 9)).sum(2).double(), torch.ones(2, 2, 3, 2).double(), rtol=0.02, atol=0
        )


@pytest.mark.parametrize(
    ("matrices", "given"),
    [("both", (True, True)), ("mul", (True, False)), ("add", (False, True)), ("none", (False,) * 2)],
)
def test_matrices(matrices: str, given: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = elsa_ext.ghost_head, []
    monkeypatch.setattr(
        elsa_ext, "ghost_head", lambda *args, **options: seen.append(args) or original(*args, **options)
    )
    problem = problems(build_parser().parse_args(["bench", "op", *SMALL, "--matrices", matrices]))[0]
    next(iter(op.ghost_head(problem, CPU, False, ()))).build()["forward"].call()
    assert tuple(matrix is not None for matrix in seen[0][2:]) == given
    assert matrices != "both" or seen[0][2] is not seen[0][3]


def parsed(*arguments: str) -> list[Any]:
    return problems(build_parser().parse_args(["bench", "op", *arguments]))


def test_presets() -> None:
    assert [problem.name for problem in parsed()] == list(PRESETS) == [p.name for p in parsed("--preset", "all")]
    assert [problem.name for problem in parsed("--batch", "3", "--dtype", "float16")] == list(PRESETS)
    first, _, third, volo = parsed("--batch", "3")
    assert (first.batch, first.channels, first.height, first.width, first.heads) == (3, 96, 56, 56, 3)
    assert (first.kernel_size, first.dim_qk, first.group_width, first.matrices) == (7, 64, 4, "add")
    assert (third.channels, third.height, third.heads, third.dim_qk) == (384, 14, 12, 256)
    assert (volo.channels, volo.height, volo.heads, volo.kernel_size) == (192, 28, 6, 5)
    assert (volo.dim_qk, volo.group_width, volo.matrices) == (128, 8, "both")
    (changed,) = parsed("--preset", "volo-d1", "--kernel-size", "3")
    assert (changed.kernel_size, changed.channels, changed.name) == (3, 192, "volo-d1, changed")
    (custom,) = parsed("--size", "9x4", "--channels", "64")
    assert (custom.height, custom.width, custom.heads, custom.kernel_size) == (9, 4, 2, 7)


def test_threads(command: Command, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    arguments = ("--op", "ghost_head", "--baselines", "none", "--threads", before + 1, "--json", tmp_path / "x.json")
    assert command("bench", "op", *SMALL, *arguments).code == 0
    assert json.loads((tmp_path / "x.json").read_text())["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_compiled_formula(command: Command) -> None:
    result = command("bench", "op", *SMALL, "--op", "ghost_head", "--baselines", "compile")
    assert "formula, torch.compile  forward" in result.out
    assert "absent" not in result.out


@pytest.mark.parametrize("preset", ["swin-t-3", "volo-d1"])
def test_module(command: Command, tmp_path: Path, preset: str) -> None:
    path = tmp_path / "module.json"
    arguments = ("--preset", preset, "--batch", 1, "--repeats", 1, "--device", "cpu", "--backprop")
    result = command("bench", "module", *arguments, "--baselines", "timm", "natten", "--json", path)
    assert (result.code, result.err) == (0, "")
    (comparison,) = json.loads(path.read_text())["comparisons"]
    rows = by_row(comparison)
    problem = comparison["problem"]
    pixels, channels, narrow = problem["height"] * problem["width"], problem["channels"], problem["dim_qk"]
    taps = problem["kernel_size"] ** 2
    projections = channels * (2 * narrow + channels) + channels**2
    hadamard = narrow * problem["group_width"] * taps + problem["heads"] * taps * narrow
    forward = projections + hadamard + 2 * taps * channels
    assert rows["elsa_ext", "forward"]["multiply_adds"] == pixels * forward
    # ghost_head's backward: 2 + 2 a tap with ghost_add, 2 + 4 with both.
    backward = 2 * (projections + hadamard) + (6 if problem["matrices"] == "both" else 4) * taps * channels
    assert rows["elsa_ext", "forward + backward"]["multiply_adds"] == pixels * (forward + backward)
    if preset == "swin-t-3":
        assert rows["timm", "forward"]["name"] == "timm window attention"
        windowed = pixels * (4 * channels**2 + 2 * 49 * channels)
        assert rows["timm", "forward"]["multiply_adds"] == windowed
        assert rows["timm", "forward + backward"]["multiply_adds"] == 3 * windowed
    else:
        assert rows["timm", "forward"]["name"] == "timm outlook attention"
    assert "absent: NATTEN (not installed)" in result.out


def test_model(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    arguments = ("--model", "elsa_swin_micro", "--batch", 2, "--repeats", 1, "--device", "cpu", "--backprop")
    result = command("bench", "model", *arguments, "--json", path)
    assert (result.code, result.err) == (0, "")
    assert "absent: timm model (none of this size; --baseline NAME chooses one)" in result.out
    assert "images/s" in result.out and "GB/s" not in result.out[result.out.index("elsa_swin_micro") :].split("\n")[2]
    (comparison,) = json.loads(path.read_text())["comparisons"]
    rows = by_row(comparison)
    assert set(rows) == {(c, d) for c in ("elsa_ext", "formula") for d in ("inference", "training step")}
    for direction in ("inference", "training step"):
        row = rows["elsa_ext", direction]
        assert row["images_per_s"] == pytest.approx(2e3 / row["median_ms"])
        assert row["multiply_adds"] == rows["formula", direction]["multiply_adds"] > 0
    parameters = sum(weight.nbytes for weight in elsa_ext.models.elsa_swin_micro(num_classes=1000).parameters())
    assert rows["elsa_ext", "training step"]["peak_bytes"] > parameters  # all gradients are there at one time
    assert rows["elsa_ext", "training step"]["peak_bytes"] < rows["formula", "training step"]["peak_bytes"]


def test_training_step() -> None:
    layer = torch.nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    training_step(layer, torch.randn(2, 4), torch.tensor([0, 2]))()
    assert not torch.equal(layer.weight, before)
    assert layer.weight.grad is None and layer.bias.grad is None  # so that each step allocates all of them


def test_plot(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    result = command("bench", "op", *SMALL, "--baselines", "formula", "--backprop", "--plot", path)
    assert (result.code, result.err) == (0, "")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > image.height > 300
        colours = {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3)[::7]}
    assert {(0xE6, 0x9F, 0x00), (0xB3, 0x5C, 0x00), (0x9D, 0xB7, 0xCF), (0x45, 0x6A, 0x8C)} <= colours
    assert list(tmp_path.iterdir()) == [path]


def measured(**samples: list[float]) -> Measured:
    """Return contenders that took so many seconds for 6e9 multiply-adds and 2e9 bytes, where a floor is 1 second."""
    entrants = []
    for name, times in samples.items():
        contender = Contender(name.partition("_at_")[0], name, dict)
        entrants.append(Entrant(contender, "forward", Task(lambda: None, 6 * 10**9, 2 * 10**9), 7, 1.0, times))
    comparison = Comparison("label", "title", {"op": "x"}, ("forward",), list, images=4)
    return Measured(comparison, entrants, [], {"mm_dtype": "float32", "gfma_per_s": 6.0, "gb_per_s": 2.5})


def test_summary() -> None:
    found = measured(elsa_ext=[2.0, 4.0, 2.0], other_at_first=[9.0], other_at_last=[5.0], third=[8.0])
    summary = summarise(found)
    ours, other, third = summary["rows"]
    assert [row["name"] for row in summary["rows"]] == ["elsa_ext", "other_at_last", "third"]
    assert (ours["median_ms"], ours["q1_ms"], ours["q3_ms"], ours["iqr_ms"]) == (2000, 2000, 3000, 1000)
    assert (ours["gfma_per_s"], ours["gb_per_s"], ours["images_per_s"], ours["ratio"]) == (3, 1, 2, 1)
    assert (ours["floor_ms"], ours["percent_of_floor"], other["percent_of_floor"]) == (1000, 50, 20)  # of multiply-adds
    assert (other["ratio"], third["ratio"]) == (2.5, 4)
    found.floors["gb_per_s"] = 0.5
    assert summarise(found)["rows"][0]["percent_of_floor"] == 200  # of bytes


@pytest.mark.parametrize(("tolerance", "code"), [(0, 1), (49, 1), (51, 0)])
def test_tolerance(tmp_path: Path, tolerance: float, code: int) -> None:
    def run(seconds: float) -> dict[str, Any]:
        return {**new_run("op", machine(CPU), {}), "comparisons": [summarise(measured(elsa_ext=[seconds]))]}

    write(tmp_path / "old.json", run(2.0))
    lines, found = Earlier(tmp_path / "old.json", "op").report(run(3.0), tolerance)
    assert found == code
    assert " 1.500 " in lines[4]


def earlier(run: dict[str, Any], path: Path, **factors: float) -> Path:
    """Write a run whose rows of the named contenders took ``factors`` times as long."""
    copy = json.loads(json.dumps(run))
    for comparison in copy["comparisons"]:
        for row in comparison["rows"]:
            row["median_ms"] *= factors.get(row["contender"], 1)
    path.write_text(json.dumps(copy))
    return path


COMPARED = ("bench", "op", *SMALL, "--op", "ghost_head", "--baselines", "formula")


def test_compare(command: Command, small_run: dict[str, Any], tmp_path: Path) -> None:
    slower = command(*COMPARED, "--compare", earlier(small_run, tmp_path / "a.json", elsa_ext=1e-4))
    assert (slower.code, slower.err) == (1, "")
    assert "slower by more than 10 %: ghost_head, custom, forward: " in slower.out
    faster = command(*COMPARED, "--compare", earlier(small_run, tmp_path / "b.json", elsa_ext=1e4))
    assert (faster.code, faster.err) == (0, "")
    assert "nothing of ours is slower by more than 10 %" in faster.out


def test_compare_shows_the_ratios(command: Command, small_run: dict[str, Any], tmp_path: Path) -> None:
    path, old = tmp_path / "now.json", earlier(small_run, tmp_path / "old.json", elsa_ext=1e4)
    shown = command(*COMPARED, "--json", path, "--compare", old).out.split("against ")[1].splitlines()
    before, now = (
        by_row(json.loads(old.read_text())["comparisons"][0]),
        by_row(json.loads(path.read_text())["comparisons"][0]),
    )
    for line, contender in ((shown[3], "elsa_ext"), (shown[4], "formula")):
        ratio = now[contender, "forward"]["median_ms"] / before[contender, "forward"]["median_ms"]
        assert line.split()[:2] == [contender, "forward"] and f" {ratio:.3f} " in line


def test_compare_looks_at_ours_alone(command: Command, small_run: dict[str, Any], tmp_path: Path) -> None:
    path = earlier(small_run, tmp_path / "c.json", formula=1e-4, elsa_ext=1e4)
    assert command(*COMPARED, "--compare", path).code == 0


def test_compare_with_nothing_in_common(
    command: Command, small_run: dict[str, Any], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    path = runs / "op.json"
    assert_refused(command(*COMPARED, "--size", 7, "--compare", path), str(path), "no row")
    assert_refused(command("bench", "module", *SMALL, "--compare", path), str(path), "bench op", "bench module")
    other = {**small_run, "machine": {**small_run["machine"], "device": "cuda"}}
    (tmp_path / "cuda.json").write_text(json.dumps(other))
    assert_refused(command(*COMPARED, "--compare", tmp_path / "cuda.json"), "on cuda", "on cpu")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "text",
        "[]",
        "{}",
        '{"format": 1, "bench": "op"}',
        '{"format": 0, "bench": "op", "machine": {}, "comparisons": []}',
        '{"format": 1, "bench": "op", "machine": {}, "comparisons": [{"problem": {}, "rows": [{"contender": "x"}]}]}',
        '{"format": 1, "bench": "op", "machine": [], "comparisons": 3}',
    ],
)
def test_compare_with_something_else(command: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    assert_refused(command(*COMPARED, "--compare", tmp_path / "bad.json"), "elsa-ext bench: ", "bad.json")


def test_compare_with_no_file(command: Command, tmp_path: Path) -> None:
    assert_refused(command(*COMPARED, "--compare", tmp_path / "no.json"), f"no such file: {tmp_path}/no.json")
    assert_refused(command(*COMPARED, "--compare", tmp_path), f"cannot read {tmp_path}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert_refused(command(*COMPARED, "--compare", tmp_path / "binary"), "binary is not JSON")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--heads", "5"], ["--heads 5", "96 channels"]),
        (["--kernel-size", "4"], ["--kernel-size", "odd", "4"]),
        (["--size", "56x"], ["--size", "'56x'"]),
        (["--size", "1x2x3"], ["--size", "'1x2x3'"]),
        (["--size", "0"], ["--size", "'0'"]),
        (["--channels", "2", "--heads", "1"], ["--channels 2"]),
        (["--stride", "57"], ["--stride 57", "56 x 56"]),
        (["--batch", "0"], ["--batch", "'0'"]),
        (["--dtype", "int8"], ["--dtype", "'int8'", "bfloat16"]),
        (["--preset", "swin-t-9"], ["--preset", "'swin-t-9'", "volo-d1"]),
        (["--baselines", "cudnn"], ["--baselines", "'cudnn'", "depthwise"]),
        (["--repeats", "0"], ["--repeats", "'0'"]),
        (["--device", "toaster"], ["--device toaster"]),
        (["--device", "meta"], ["--device meta"]),
        (["--tolerance", "-1"], ["--tolerance", "'-1'"]),
        (["--json", "nowhere/x.json"], ["--json nowhere/x.json", "no such folder: nowhere"]),
        (["--json", "."], ["--json . is a folder"]),
        (["--plot", "nowhere/x.png"], ["--plot nowhere/x.png", "no such folder"]),
        (["--plot", "x", "--json", "x"], ["--json and --plot are the same file"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_options(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    assert_refused(command("bench", "op", *arguments), "elsa-ext bench", *parts)
    assert list(tmp_path.iterdir()) == []


def test_model_options(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    assert_refused(command("bench", "model", "--model", "elsa_swin_mirco"), "'elsa_swin_mirco'", "elsa_swin_micro")
    assert_refused(command("bench", "model", "--baseline", "swim"), "unknown model 'swim'")
    assert_refused(command("bench"), "WHAT")
    assert_refused(command("bench", "everything"), "'everything'", "'op'", "'module'", "'model'")


@pytest.mark.parametrize(
    ("kind", "more", "missing"),
    [("op", [], "tqdm"), ("op", ["--plot", "x.png"], "matplotlib"), ("module", [], "timm"), ("model", [], "timm")],
)
def test_package_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch, kind: str, more: list[str], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = command("bench", kind, *more)
    assert_refused(result, f"elsa-ext bench: {missing} not installed: pip install 'elsa-ext[bench]'")


def test_baseline_that_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if torch.is_grad_enabled():
            raise NotImplementedError("no backward here. Do without\nit")
        if calls > 8:
            raise RuntimeError("tired")
        return query

    monkeypatch.setitem(neighbours.ATTENDS, "flex", lambda *_: attend)
    arguments = ("--op", "ghost_head", "--backprop", "--baselines", "flex")
    result = command("bench", "op", *SMALL, *arguments)
    assert (result.code, result.err) == (0, "")
    assert "absent: FlexAttention forward + backward (no backward here)\n" in result.out
    assert "absent: FlexAttention forward (tired)\n" in result.out
    assert result.out.count("FlexAttention") == 2
    assert calls == 9  # and was left alone from then on


def test_ours_fails(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. you tried to allocate 7 bytes. Sorry")

    monkeypatch.setattr(elsa_ext, "ghost_head", fail)
    result = command("bench", "op", *SMALL, "--baselines", "none")
    assert_refused(result, "elsa-ext bench: ghost_head, custom: elsa_ext (you tried to allocate 7 bytes)")


def test_tensors_that_do_not_fit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr(op, "random_map", fail)
    assert_refused(command("bench", "op", *SMALL, "--baselines", "none"), "ghost_head, custom: no memory")


def test_interrupted(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original, measured = bench_command.measure, []

    def interrupt(comparison: Any, *arguments: Any) -> Any:
        if measured:
            raise KeyboardInterrupt
        measured.append(comparison)
        return original(comparison, *arguments)

    monkeypatch.setattr(bench_command, "measure", interrupt)
    result = command("bench", "op", *SMALL, "--baselines", "none", "--json", tmp_path / "half.json")
    assert (result.code, result.err) == (130, "elsa-ext bench: interrupted\n")
    # What had been measured until then is there, and only that.
    assert [found["problem"]["op"] for found in json.loads((tmp_path / "half.json").read_text())["comparisons"]] == [
        "ghost_head"
    ]


def test_natten(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    module = ModuleType("natten")

    def na2d(query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
        seen.append((tuple(query.shape), tuple(key.shape), kernel_size, dilation))
        return query * key * value

    module.na2d = na2d
    module.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "natten", module)
    arguments = ("--backprop", "--baselines", "natten", "--dilation", "2")
    for kind in (("op", "--op", "ghost_head"), ("module",)):
        result = command("bench", *kind, *SMALL, *arguments)
        assert (result.code, result.err) == (0, "")
        assert "absent" not in result.out and result.out.count("\nNATTEN ") == 2
        assert set(seen) == {((2, 6, 5, 2, 4), (2, 6, 5, 2, 4), 3, 2)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dilation", "stride"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_flex_attends_to_the_neighbours(dilation: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    (problem,) = parsed(*SMALL, "--dilation", str(dilation), "--stride", str(stride))
    height, width = problem.out_size
    query = torch.randn(2, height, width, 2, 16)
    key, value = (torch.randn(2, 6, 5, 2, 16) for _ in range(2))
    out = neighbours.flex(problem, CPU)(query, key, value)
    expected = torch.empty_like(out)
    for y in range(height):
        for x in range(width):
            places = [(stride * y + i * dilation, stride * x + j * dilation) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            rows, columns = zip(*[(i, j) for i, j in places if 0 <= i < 6 and 0 <= j < 5], strict=True)
            keys, values = (image[:, rows, columns].transpose(1, 2) for image in (key, value))
            weights = ((query[:, y, x, :, None] * keys).sum(-1) / 4).softmax(-1)
            expected[:, y, x] = (weights[..., None] * values).sum(2)
    torch.testing.assert_close(out, expected)


def test_peak_memory() -> None:
    mebibyte = 2**20

    def call() -> Tensor:
        first = torch.empty(1 * mebibyte, dtype=torch.uint8)
        second = torch.empty(2 * mebibyte, dtype=torch.uint8)
        del first
        third = torch.empty(3 * mebibyte, dtype=torch.uint8)
        del second, third
        return torch.empty(4 * mebibyte, dtype=torch.uint8)

    assert peak_memory(lambda: None, CPU) == 0
    assert peak_memory(call, CPU) == 5 * mebibyte


def test_peak_memory_inside_of_an_op() -> None:
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    assert peak_memory(lambda: torch.linalg.multi_dot([a, b, a]), CPU) == 2 * a.nbytes


def test_rounds_of_slow_calls() -> None:
    contender, task = Contender("x", "x", dict), Task(lambda: None, 1, 1)

    def rounds(seconds: float, repeats: int, ours: float = 0.1) -> set[int]:
        return Entrant(contender, "forward", task, 0, seconds).rounds(repeats, ours)

    assert rounds(0.01, 20) == set(range(20))
    assert rounds(1.0, 20) == set(range(0, 20, 2))
    assert rounds(1.0, 20, ours=0.6) == set(range(20))
    assert rounds(60.0, 20) == {0, 6, 13}
    assert rounds(60.0, 2) == {0, 1}


def test_short_calls_are_repeated_within_a_sample() -> None:
    calls = []
    entrant = Entrant(Contender("x", "x", dict), "forward", Task(lambda: calls.append(0), 1, 1), 0, 1e-4)
    (seconds,) = measure.sample(entrant, CPU)
    assert len(calls) == math.ceil(measure.SHORTEST_SAMPLE / 1e-4)
    assert seconds < 1e-3


def test_quartiles() -> None:
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)

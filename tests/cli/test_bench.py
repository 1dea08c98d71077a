"""``elsa-ext bench``: what it counts, times and draws. No test asserts a time."""

import ctypes
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import elsa_ext
import numpy as np
import pytest
import torch
from elsa_ext.cli.bench import measure, neighbours, op_elsa
from elsa_ext.cli.bench.contenders import OURS, Contender, Task
from elsa_ext.cli.bench.measure import Entrant, Floors, run_rounds
from elsa_ext.cli.bench.memory import Memory, measure_memory
from elsa_ext.cli.bench.model import training_step
from elsa_ext.cli.bench.problem_elsa import PRESETS, ElsaProblem
from elsa_ext.cli.bench.problems import problems
from elsa_ext.cli.bench.results import quartiles
from elsa_ext.cli.parser import build_parser
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from .conftest import SMALL_BENCH as SMALL
from .conftest import Result

Command = Callable[..., Result]
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_floors")
PIXELS, TAPS = 2 * 6 * 5, 9


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def by_row(comparison: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["contender"], row["direction"]): row for row in comparison["rows"]}


def parsed(*arguments: str) -> list[Any]:
    return problems(ElsaProblem, build_parser().parse_args(["bench", "op", *arguments]))


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


def test_machine(small_run: dict[str, Any], bench_runs: Path) -> None:
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
    out = (bench_runs / "op.txt").read_text()
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
    arguments = [*SMALL, "--dtype", dtype, "--layout", layout, "--matrices", "both", "--stride", "2"]
    (problem,) = parsed(*arguments)
    ours = next(iter(getattr(op_elsa, op_name)(problem, CPU, False, ())))
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
    (problem,) = parsed(*SMALL, "--matrices", matrices)
    next(iter(op_elsa.ghost_head(problem, CPU, False, ()))).build()["forward"].call()
    assert tuple(matrix is not None for matrix in seen[0][2:]) == given
    assert matrices != "both" or seen[0][2] is not seen[0][3]


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


@pytest.mark.thorough
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


@pytest.mark.thorough
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

    nothing = measure_memory(lambda: None, CPU)
    assert nothing.peak == 0 and nothing.extra < 2**16
    memory = measure_memory(call, CPU)
    assert memory.peak == 5 * mebibyte
    assert mebibyte <= memory.extra < 1.1 * mebibyte  # of the result of 4 none


def test_peak_memory_inside_of_an_op() -> None:
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    assert measure_memory(lambda: torch.linalg.multi_dot([a, b, a]), CPU).peak == 2 * a.nbytes


def test_memory_that_a_library_allocates() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p

    def call() -> None:
        scratch = library.malloc(ctypes.c_size_t(2**20))
        time.sleep(0.2)  # long enough for the thread that watches to have its turn
        library.free(ctypes.c_void_p(scratch))

    memory = measure_memory(call, CPU)
    assert memory.peak == 0
    assert memory.extra == pytest.approx(2**20, rel=0.1)


def test_every_second_round_goes_backwards() -> None:
    order: list[str] = []
    entrants = [
        Entrant(Contender(key, key, dict), "forward", Task(partial(order.append, key), 1, 1), Memory(0, 0), 1.0)
        for key in (OURS, "x", "y")
    ]
    run_rounds(entrants, 3, Floors(CPU, "float32"), tqdm(disable=True))
    assert order == [OURS, "x", "y", "y", "x", OURS, OURS, "x", "y"]


def test_rounds_of_slow_calls() -> None:
    contender, task = Contender("x", "x", dict), Task(lambda: None, 1, 1)

    def rounds(seconds: float, repeats: int, ours: float = 0.1) -> set[int]:
        return Entrant(contender, "forward", task, Memory(0, 0), seconds).rounds(repeats, ours)

    assert rounds(0.01, 20) == set(range(20))
    assert rounds(1.0, 20) == set(range(0, 20, 2))
    assert rounds(1.0, 20, ours=0.6) == set(range(20))
    assert rounds(60.0, 20) == {0, 6, 13}
    assert rounds(60.0, 2) == {0, 1}


def test_short_calls_are_repeated_within_a_sample() -> None:
    calls = []
    entrant = Entrant(Contender("x", "x", dict), "forward", Task(lambda: calls.append(0), 1, 1), Memory(0, 0), 1e-4)
    (seconds,) = measure.sample(entrant, CPU)
    assert len(calls) == math.ceil(measure.SHORTEST_SAMPLE / 1e-4)
    assert seconds < 1e-3


def test_quartiles() -> None:
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)

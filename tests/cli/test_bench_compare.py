"""``elsa-ext bench --compare``, and the summary of samples that it compares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from elsa_ext.cli.bench import command as bench_command
from elsa_ext.cli.bench.compare import Earlier
from elsa_ext.cli.bench.contenders import Comparison, Contender, Task
from elsa_ext.cli.bench.measure import Entrant, Measured
from elsa_ext.cli.bench.memory import Memory
from elsa_ext.cli.bench.results import machine, new_run, summarise, write

from .conftest import SMALL_BENCH as SMALL
from .conftest import Result
from .test_bench import by_row
from .test_errors import assert_refused

Command = Callable[..., Result]
CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("small_floors")


def measured(**samples: list[float]) -> Measured:
    """Return contenders that took so many seconds for 6e9 multiply-adds and 2e9 bytes, where a floor is 1 second."""
    entrants = []
    for name, times in samples.items():
        contender = Contender(name.partition("_at_")[0], name, dict)
        entrants.append(
            Entrant(contender, "forward", Task(lambda: None, 6 * 10**9, 2 * 10**9), Memory(7, 3), 1.0, times)
        )
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
    command: Command, small_run: dict[str, Any], bench_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_command, "measure_all", lambda *_: pytest.fail("measured before the check"))
    path = bench_runs / "op.json"
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

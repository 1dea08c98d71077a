"""``elsa-ext compare``: what it trains, what it says of it, and that it goes on with what it has begun."""

import argparse
import csv
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from elsa_ext.cli.checkpoint import load_model
from elsa_ext.cli.compare import command as comparing
from elsa_ext.cli.compare.arguments import SETS
from elsa_ext.cli.compare.command import speeds
from elsa_ext.cli.compare.report import Result as Compared
from elsa_ext.cli.compare.report import draw, table
from elsa_ext.cli.data.data_set import Data, Images
from elsa_ext.cli.train.loop import Training
from elsa_ext.cli.train.run_folder import RunFolder
from elsa_ext.nn import LocalSpec
from PIL import Image
from torch import Tensor

from .conftest import Result, write_images
from .test_errors import assert_refused
from .test_resume import assert_same
from .test_train import metrics

Command = Callable[..., Result]

WINDOWS, ELSA = "qk+rb softmax window", "hadamard softmax neighborhood add"
RUNS = [f"{spec.replace(' ', '-')}/seed{seed}" for seed in (3, 4) for spec in (WINDOWS, ELSA)]
# Too little to learn it well, so that accuracies differ.
TINY = ("--image-size", 8, "--batch-size", 4, "--epochs", 1, "--kernel-size", 3, "--seeds", 2, "--seed", 3)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("compared") / "images", "red tan", 25)


@pytest.fixture
def compare(command: Command, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command("compare", WINDOWS, "elsa", "--data", images, *TINY, *arguments)


@pytest.fixture(scope="session")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that nothing has stopped."""
    from elsa_ext.cli import main

    folder = tmp_path_factory.mktemp("whole")
    words = ("compare", WINDOWS, "elsa", "--data", images, *TINY, "--output", folder)
    assert main([str(word) for word in words]) == 0
    return folder


@pytest.mark.thorough
def test_what_it_says_is_what_was_trained(compare: Command, whole: Path) -> None:
    result = compare("--output", whole, "--json")
    assert result.code == 0
    found = json.loads(result.out)  # and nothing else
    assert (found["seeds"], found["images"]) == ([3, 4], [40, 10])
    assert found["options"]["kernel_size"] == 3 and "seed" not in found["options"]
    with (whole / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record, spec in zip(rows, found["results"], (WINDOWS, ELSA), strict=True):
        runs = [whole / name for name in RUNS if name.startswith(spec.replace(" ", "-"))]
        accuracies = [float(metrics(run)[-1]["test_accuracy"]) for run in runs]
        assert record["accuracies"] == accuracies == [float(word) for word in row["accuracies"].split()]
        assert record["mean_accuracy"] == float(row["mean_accuracy"]) == pytest.approx(sum(accuracies) / 2)
        deviation = pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
        assert record["standard_deviation"] == float(row["standard_deviation"]) == deviation
        for run, seed in zip(runs, (3, 4), strict=True):
            checkpoint, model = load_model(str(run / "checkpoint.pt"))
            assert checkpoint.model_kwargs["spec"] == record["spec"] == row["spec"] == spec
            assert checkpoint.training is not None and checkpoint.training["options"]["seed"] == seed
        assert record["parameters"] == int(row["parameters"]) == sum(p.numel() for p in model.parameters())
        assert record["training_images_per_second"] > 0 and record["inference_images_per_second"] > 0
    assert found["results"][0]["multiply_adds"] != found["results"][1]["multiply_adds"] > 0
    with Image.open(whole / "compare.png") as image:
        assert image.width > 900


@pytest.mark.thorough
def test_seeds_are_those_of_train(command: Command, images: Path, whole: Path, tmp_path: Path) -> None:
    options = ("--image-size", 8, "--batch-size", 4, "--epochs", 1, "--kernel-size", 3, "--seed", 4, "--spec", WINDOWS)
    assert command("train", "--data", images, *options, "--output", tmp_path / "run").code == 0
    assert_same(tmp_path / "run", whole / RUNS[2])


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_goes_on(compare: Command, whole: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """In the middle of the third run."""

    class Killed(BaseException):
        pass

    def update(training: Training) -> None:
        if training.args.output.endswith(RUNS[2]) and training.progress.step == 5:
            if how == "killed":
                raise Killed
            os.kill(os.getpid(), signal.SIGINT)
        original(training)

    original = Training.update
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", update)
        patch.setattr(RunFolder, "take_back", lambda _: None)
        patch.setattr("elsa_ext.cli.train.command.conclude", lambda *_: None)
        if how == "killed":
            with pytest.raises(Killed):
                compare("--output", "folder")
        else:
            result = compare("--output", "folder")
            assert (result.code, result.err) == (130, "elsa-ext compare: interrupted\n")
            assert result.out.endswith("the same command goes on with what is in folder\n")
    signal.signal(signal.SIGINT, before)
    done = [Path("folder", run, "checkpoint.pt") for run in RUNS[:2]]
    times = [path.stat().st_mtime_ns for path in done]
    assert not Path("folder", RUNS[3]).exists() and not Path("folder/results.csv").exists()
    assert compare("--output", "folder").code == 0
    assert [path.stat().st_mtime_ns for path in done] == times
    for run in RUNS:
        assert_same(Path("folder", run), whole / run)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--epochs", 2], ["--epochs is 1 in", "not 2; choose another --output"]),
        (["--limit", 3], ["--limit is None in"]),
        (["--data", "digits"], ["--data is /"]),
    ],
    ids=str,
)
def test_other_options(compare: Command, whole: Path, arguments: list[str], parts: list[str]) -> None:
    """What is there already was not trained with them."""
    assert_refused(compare("--output", whole, *arguments), *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["name what to compare", "--set"]),
        (["elsa", "qk softmax"], ["a spec has terms, a norm and a region", "got 'qk softmax'"]),
        (["elsa", "qk softmax corner"], ["region must be neighborhood or window, got 'corner'"]),
        (["elsa", "hadamard softmax window"], ["hadamard goes with a neighborhood"]),
        (["--set", "colours"], ["'colours'", "terms"]),
        (["elsa", "--spec", "elsa"], ["unknown --spec"]),
        (["elsa", "--resume"], ["unknown --resume"]),
        (["elsa", "--seeds", "0"], ["--seeds", "'0'"]),
        (["elsa", "--seeds", "1000000"], ["--seeds", "from 1 to 1000", "'1000000'"]),
        (["elsa", "--seed", "4294967295"], ["--seeds 3 from --seed 4294967295 on go beyond 4294967295"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(command("compare", *arguments), *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["qk softmax window heads=5"],
            "elsa_swin_micro cannot be built for images of 32 x 32 pixels: convert: heads",
        ),
        (["--kernel-size", "4"], "kernel_size must be odd"),
        (["--model", "resnet10t"], "--spec is for the models elsa_swin_*, got --model resnet10t"),
        (["--model", "elsa_swin_mirco"], "unknown model"),
        (["--opt", "adamv"], "timm has no such optimizer"),
    ],
    ids=str,
)
def test_refused_before_anything_is_trained(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], part: str
) -> None:
    """Also if the first one can be built."""
    monkeypatch.chdir(tmp_path)
    assert_refused(command("compare", WINDOWS, "elsa", *arguments), part)
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_of_torchrun(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    assert_refused(command("compare", "elsa"), "torchrun starts the processes of one run")


@pytest.mark.thorough
@pytest.mark.parametrize("name", SETS)
def test_sets_can_be_built(name: str) -> None:
    specs = SETS[name]
    assert len(set(specs)) == len(specs) and all(str(LocalSpec.parse(spec)) == spec for spec in specs)
    for spec in specs:
        timm.create_model("elsa_swin_micro", spec=spec, kernel_size=5, device="meta")


def test_speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five images, by a clock that a training step moves on by 4 seconds and an inference by 2, at first by 100."""
    clock = [0.0]

    def pass_by(seconds: float) -> Tensor:
        clock[0] += seconds if clock[0] else 100.0
        return torch.zeros(1)

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for name in ("SWEEPS", "CALLS"):
        monkeypatch.setattr(comparing, name, 1)
    monkeypatch.setattr(comparing, "training_step", lambda model, images, labels: lambda: pass_by(4.0))
    model = torch.nn.Identity()
    model.forward = lambda images: pass_by(2.0)  # type: ignore[method-assign]
    images = Images([(number, 0) for number in range(5)], lambda number: torch.full([3, 2, 2], number))
    data = Data(images, images, ["a"], (3, 2, 2))
    found = speeds({"elsa": lambda: model}, data, argparse.Namespace(batch_size=8, amp=None), torch.device("cpu"))
    assert found == {"elsa": (5 / 4, 5 / 2)}


def test_table() -> None:
    results = [
        Compared(WINDOWS, [0.5, 0.75, 0.7], 123456, 7_890_000, 12.3, 4567.8),
        Compared(ELSA, [0.25, 0.3, 0.5], 234567, 8_900_000, 23.4, 5678.9),
    ]
    lines = table(results).splitlines()
    deviation = statistics.stdev([50, 75, 70])
    assert lines[1].split() == [*WINDOWS.split(), "65.00", "±", f"{deviation:.2f}", "123,456", "7.89", "12", "4,568"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "standard deviation over 3 seeds" in lines[3]
    one = [Compared(ELSA, [0.25], 1, 2, 3.0, 4.0)]
    assert "25.00  " in table(one) and "±" not in table(one).splitlines()[1]


@pytest.mark.thorough
def test_picture(tmp_path: Path) -> None:
    """Means where they belong, and the operators from top to bottom; one seed has no spread."""
    results = [Compared(WINDOWS, [0.2, 0.3], 1, 2, 3.0, 4.0), Compared(ELSA, [0.8], 1, 2, 3.0, 4.0)]
    draw(tmp_path / "compare.png", "title", results)
    with Image.open(tmp_path / "compare.png") as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    rows, columns = (abs(pixels - (179, 92, 0)) < 20).all(2).nonzero()
    upper = rows < (rows.min() + rows.max()) / 2
    assert columns[upper].max() + 100 < columns[~upper].min()
    assert np.ptp(columns[upper]) > 60 > np.ptp(columns[~upper])

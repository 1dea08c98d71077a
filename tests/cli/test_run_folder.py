"""Every run has a folder of its own; what was there before stays, and a run that comes to nothing leaves nothing."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elsa_ext.cli.errors import CommandError
from elsa_ext.cli.parser import build_parser
from elsa_ext.cli.train import run_folder
from elsa_ext.cli.train.command import open_folder
from elsa_ext.cli.train.processes import Processes
from elsa_ext.cli.train.report import Metrics
from elsa_ext.cli.train.run_folder import RunFolder, new_run

from .conftest import Result, limit_of_file_size, write_images
from .test_errors import assert_refused
from .test_train import metrics

Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", "red tan", 4)


def test_runs_of_the_same_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20250101-120000")
    names = [RunFolder(None, "flowers").path.as_posix() for _ in range(3)]
    assert names == [f"runs/flowers-20250101-120000{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize("output", [None, "run"])
def test_runs_at_the_same_time(output: str | None) -> None:
    start, runs, errors = threading.Barrier(8), [], []

    def begin() -> None:
        start.wait()
        try:
            runs.append(RunFolder(output, "flowers").path)
        except CommandError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == len({*runs}) == (8 if output is None else 1)
    assert all("choose another" in error for error in errors) and len(errors) == 8 - len(runs)


def test_claim_after_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "check_output", lambda _: None)
    RunFolder("run", "flowers")
    with pytest.raises(CommandError, match="another run has just started in run"):
        RunFolder("run", "flowers")
    assert os.listdir("run") == ["metrics.csv"]


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.csv", "curves.png", "samples"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_files_of_somebody_stay(command: Command, name: str, kind: str) -> None:
    Path("run").mkdir()
    if kind == "file":
        Path("run", name).write_text("mine")
    else:
        Path("run", name).symlink_to("nowhere")
    assert_refused(command("train", "--output", "run"), "elsa-ext train: ", f"run already holds {name}")
    assert os.listdir("run") == [name]
    assert kind == "link" or Path("run", name).read_text() == "mine"


def test_folder_with_other_files(command: Command, images: Path) -> None:
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    result = command("train", "--data", images, "--epochs", 1, "--output", "run")
    assert (result.code, result.err) == (0, "")
    assert sorted(os.listdir("run")) == ["checkpoint.pt", "curves.png", "metrics.csv", "notes.txt"]
    assert result.out.endswith("written to run: checkpoint.pt, curves.png, metrics.csv\n")


@pytest.mark.parametrize("place", ["file", "dangling", "pipe", "loop", "/dev/null"])
def test_no_folder(command: Command, place: str) -> None:
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    before = sorted(os.listdir("."))
    assert_refused(command("train", "--output", place), f"--output {place} is not a folder")
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("/proc/run", "No such file or directory"),
        ("file/run", "Not a directory"),
        ("new/" + "x" * 256, "File name too long"),
        ("new/deeper/" + "x/" * 3000, "File name too long"),
        ("loop/run", "Too many levels of symbolic links"),
    ],
    ids=lambda value: value[:20],
)
def test_unwritable_places(command: Command, images: Path, place: str, reason: str) -> None:
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    assert_refused(command("train", "--data", images, "--output", place), f": {reason}\n")
    assert sorted(os.listdir(".")) == ["file", "loop"]


def test_failed_start_leaves_nothing(command: Command, images: Path) -> None:
    for file in images.glob("red/*.png"):
        file.write_bytes(file.read_bytes()[:60])
    assert_refused(command("train", "--data", images), "cannot read")
    assert_refused(command("train", "--data", images, "--output", "a/b/c"), "cannot read")
    assert os.listdir(".") == []
    Path("run").mkdir()
    Path("run/notes.txt").write_text("mine")
    assert_refused(command("train", "--data", images, "--output", "run"), "cannot read")
    assert os.listdir("run") == ["notes.txt"]


def test_samples_of_a_failed_start(command: Command) -> None:
    result = command("train", "--image-size", 8, "--lr", 1e15)
    assert result.code == 1 and "no longer finite" in result.err
    assert os.listdir(".") == []


def test_interrupted_start() -> None:
    with pytest.raises(KeyboardInterrupt), new_run("run", "x"):
        assert os.listdir("run") == ["metrics.csv"]
        raise KeyboardInterrupt
    assert os.listdir(".") == []


@pytest.mark.parametrize("local_rank", [0, 1])
def test_one_process_of_all_machines_writes(local_rank: int) -> None:
    args = build_parser().parse_args(["train", "--output", "run"])
    with open_folder(args, "x", Processes(rank=1, count=2, local_rank=local_rank)) as folder:
        assert folder is None and os.listdir(".") == []
    with open_folder(args, "x", Processes(count=2)) as folder:
        assert folder is not None and os.listdir("run") == ["metrics.csv"]


@pytest.mark.parametrize("name", ["x" * 255, "ö" * 127, os.fsdecode(b"\xe9" * 255)], ids=lambda name: name[:1])
def test_long_names_of_data(name: str) -> None:
    path = RunFolder(None, name).path
    assert path.is_dir() and path.name[:60] == name[:60]


def test_full_disk(command: Command, images: Path) -> None:
    with limit_of_file_size(400_000):
        result = command("train", "--data", images, "--epochs", 3, "--output", "run")
    assert_refused(result, "elsa-ext train: run/checkpoint.pt: File too large\n")
    assert os.listdir(".") == []


def test_full_disk_while_metrics_are_written() -> None:
    folder, rows = RunFolder("run", "x"), [Metrics(epoch, 1.0, 0.5, 1.0, 0.5, 1.0) for epoch in range(1, 100)]
    folder.write_metrics(rows[:1])
    with limit_of_file_size(1000), pytest.raises(OSError, match="too large"):
        folder.write_metrics(rows)
    assert [row["epoch"] for row in metrics(Path("run"))] == ["1"]


@pytest.mark.parametrize("failing", ["write_metrics", "add_curves"])
def test_full_disk_after_the_checkpoint(
    command: Command, images: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(run: RunFolder, *arguments: Any) -> None:
        if run.begun:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), failing)
        original(run, *arguments)

    original = getattr(RunFolder, failing)
    monkeypatch.setattr(RunFolder, failing, fail)
    result = command("train", "--data", images, "--epochs", 2, "--output", "run")
    assert result.code == (1 if failing == "write_metrics" else 2)
    assert result.err.startswith(f"elsa-ext train: {failing}: No space left on device")
    assert command("classify", "run/checkpoint.pt", images / "red" / "0.png").code == 0


def test_full_disk_later(command: Command, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, done = run_folder.Checkpoint.save, []

    def save(checkpoint: run_folder.Checkpoint, path: Path) -> None:
        with limit_of_file_size(400_000 if len(done) > 1 else 2**40):
            original(checkpoint, path)
        done.append(path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room for curves either")

    monkeypatch.setattr(run_folder.Checkpoint, "save", save)
    result = command("train", "--data", images, "--epochs", 2, "--output", "run")
    assert result.code == 1
    assert result.err.startswith("elsa-ext train: run/checkpoint.pt: File too large; what was written before is still")
    assert "after epoch 1," in result.out
    assert [row["epoch"] for row in metrics(Path("run"))] == ["1"]
    assert sorted(os.listdir("run")) == ["checkpoint.pt", "curves.png", "metrics.csv"]
    assert command("classify", "run/checkpoint.pt", images / "red" / "0.png").code == 0
    done.clear()
    monkeypatch.setattr(run_folder, "draw_curves", fail)
    result = command("train", "--data", images, "--epochs", 2, "--output", "second")
    assert result.code == 1
    assert result.err.startswith("elsa-ext train: second/checkpoint.pt: File too large; ")

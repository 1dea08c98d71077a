"""Running the command line in the process of the test, folders of images for it, and results of its benchmark."""

import contextlib
import json
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from elsa_ext.cli import main
from elsa_ext.cli.bench import measure, memory
from PIL import Image, ImageColor


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs ``elsa-ext`` with the given arguments."""

    def run(*arguments: object) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return run


def write_images(root: Path, colours: str, count: int) -> Path:
    """Write ``count`` noisy images of each colour as ``root/<colour>/<n>.png``, and return ``root``."""
    noise = np.random.default_rng(0)
    for colour in colours.split():
        (root / colour).mkdir(parents=True)
        for number in range(count):
            pixels = noise.normal(ImageColor.getrgb(colour), 60, (20, 24, 3)).clip(0, 255)
            Image.fromarray(pixels.astype("uint8")).save(root / colour / f"{number}.png")
    return root


def train_on(root: Path, output: Path, *arguments: object) -> Path:
    """Train on a folder of images and return the run folder."""
    arguments = ("train", "--data", root, "--output", output, *arguments)
    assert main([str(argument) for argument in arguments]) == 0
    return output


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose model tells red from blue."""
    folder = tmp_path_factory.mktemp("trained")
    images = write_images(folder / "images", "blue red", 20)
    return train_on(images, folder / "run", "--epochs", 5, "--batch-size", 8)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red image."""
    return write_images(tmp_path_factory.mktemp("picture"), "red", 1) / "red" / "0.png"


@contextlib.contextmanager
def limit_of_file_size(size: int) -> Iterator[None]:
    """Let every write beyond ``size`` bytes of a file fail, as on a full disk; that of pytest's own output, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# What `elsa-ext bench` is asked for where nothing matters but the shape of its answer.
SMALL_BENCH = (
    *("--size", "6x5", "--channels", "8", "--heads", "2", "--kernel-size", "3", "--group-width", "2"),
    *("--batch", "2", "--repeats", "2", "--device", "cpu"),
)


@pytest.fixture
def small_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Floors, and a look at the memory, that take no time: nothing here depends on how well they are measured."""
    monkeypatch.setattr(measure, "FLOORS", {"cpu": (64, 2**16)})
    monkeypatch.setattr(memory, "WATCHED", 0.0)


@pytest.fixture(scope="session")
def bench_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of results that tests start from."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def small_run(command: Callable[..., Result], bench_runs: Path, small_floors: None) -> dict[str, Any]:
    """The record of both ops on a small map, measured once."""
    path = bench_runs / "op.json"
    if not path.exists():
        baselines = ("formula", "depthwise", "natten")
        result = command("bench", "op", *SMALL_BENCH, "--backprop", "--baselines", *baselines, "--json", path)
        assert (result.code, result.err) == (0, "")
        (bench_runs / "op.txt").write_text(result.out)
    return json.loads(path.read_text())

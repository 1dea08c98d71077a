"""Running the command line in the process of the test, and folders of images for it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from elsa_ext.cli import main
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

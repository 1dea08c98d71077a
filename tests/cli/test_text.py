"""Text from users is shown as text: never as a code for the terminal, never as a formula."""

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from elsa_ext.cli.bench import plot
from elsa_ext.cli.picture import plain_style, save_picture
from elsa_ext.cli.text import printable
from elsa_ext.cli.train.report import Metrics, draw_curves
from matplotlib.figure import Figure
from PIL import Image

from .conftest import Result, write_images

Command = Callable[..., Result]
ROWS = [Metrics(1, 0.5, 0.5, 0.5, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain name.png", "a plain name.png"),
        ("日本, ö, naïve, 😀, x²", "日本, ö, naïve, 😀, x²"),
        ("no-break\xa0and\u202fnarrow", "no-break\xa0and\u202fnarrow"),  # as in the names of macOS's screenshots
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\tand\0", "two\\nlines\\r\\tand\\x00"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("gpj\u202egnp.exe", "gpj\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        (os.fsdecode(b"donn\xe9es"), "donn\\xe9es"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


ODD_NAMES = [
    "pay$_by_$",
    "a$$b",
    "x^2 {y}",
    "tab\there",
    "two\nlines",
    "日本",
    os.fsdecode(b"donn\xe9es"),
    "\x1b[31mred",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_curves_with_any_title(tmp_path: Path, name: str) -> None:
    draw_curves(tmp_path / "curves.png", name, ROWS)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"


def drawn(title: str, path: Path) -> np.ndarray:
    with plain_style():
        figure = Figure()
        figure.suptitle(title)
        save_picture(path, figure)
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_dollars_are_no_formula(tmp_path: Path) -> None:
    # As a formula, "$x$" would be as wide as one letter.
    widths = [np.flatnonzero((drawn(title, tmp_path / "x.png") < 128).any(0))[[0, -1]] for title in ("$x$", "SxS", "x")]
    assert np.ptp(widths[0]) > np.ptp(widths[1]) * 0.8 > np.ptp(widths[2])


def test_settings_of_the_user_do_not_matter(tmp_path: Path) -> None:
    draw_curves(tmp_path / "a.png", "a_b", ROWS)
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "red", "axes.formatter.use_mathtext": True}):
        draw_curves(tmp_path / "b.png", "a_b", ROWS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bench_plot_takes_text_for_text(small_run: dict, tmp_path: Path) -> None:
    run = {**small_run, "machine": {**small_run["machine"], "gpu": None, "cpu": "A$B$ \x1b \udce9 日本"}}
    for comparison in run["comparisons"]:
        comparison["title"] = "$a_b: \\frac$ \n"
    plot.draw(tmp_path / "plot.png", run)
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"


def test_names_from_folder_to_answer(command: Command, tmp_path: Path) -> None:
    odd = os.fsdecode(b"pay$_by_$ \x1b[31m \xe9 \n") + "\u202e日本"
    images = write_images(tmp_path / odd, "red tan", 2)
    (images / "red").rename(images / odd)
    (images / odd / "0.png").rename(images / odd / odd)
    result = command("train", "--data", images, "--epochs", 1, "--output", tmp_path / "run")
    assert result.code == 2 and result.err.count("\n") == 1  # a class that has one image left
    (images / odd / odd).rename(images / odd / f"{odd}.png")
    trained = command("train", "--data", images, "--epochs", 1, "--output", tmp_path / f"run{odd}")
    assert (trained.code, trained.err) == (0, "")
    image = images / odd / f"{odd}.png"
    classified = command("classify", tmp_path / f"run{odd}" / "checkpoint.pt", image, tmp_path / f"no {odd}")
    assert classified.code == 2
    shown = "pay$_by_$ \\x1b[31m \\xe9 \\n\\u202e日本"
    assert trained.out.count(shown) == 2  # of the data and of the run folder
    assert classified.out.count(shown) == 4  # two folders and the file of the image, and its class
    assert classified.err == f"elsa-ext classify: no such file: {tmp_path}/no {shown}\n"
    assert not {"\x1b", "\u202e", "\udce9"} & {*trained.out, *classified.out, *result.err}


def test_errors_of_the_parser(command: Command) -> None:
    result = command("train", "--\x1b[31m")
    assert result.err == "elsa-ext train: unknown --\\x1b[31m (see elsa-ext train --help)\n"

"""Signals that ask a process to end act like Ctrl-C, once."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from elsa_ext.cli.signals import STOPPING, Stopped, stop_signals

from .conftest import write_images

TWICE = """
import os, signal, sys
from elsa_ext.cli.signals import stop_signals
number = int(sys.argv[1])
with stop_signals():
    try:
        os.kill(os.getpid(), number)
    finally:
        os.kill(os.getpid(), number)
        print("still there")
"""


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """What a process has by default, whatever the tests were started from."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_first_signal(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, stop_signals():
        os.kill(os.getpid(), number)
    if number != signal.SIGINT:
        assert isinstance(caught.value, Stopped)
        assert str(caught.value) == f"stopped by {number.name}"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.thorough
@pytest.mark.parametrize("number", STOPPING)
def test_second_signal(number: signal.Signals) -> None:
    process = subprocess.run([sys.executable, "-c", TWICE, str(int(number))], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (-number, "")


def test_nohup_and_other_handlers_stay() -> None:
    caught: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    with stop_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught == [signal.SIGTERM]


def test_in_a_thread() -> None:
    ran: list[bool] = []

    def enter() -> None:
        with stop_signals():
            ran.append(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert ran == [True]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGTERM, 2),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((signal.SIGHUP, 0), (signal.SIGINT, 1))),
    ],
)
def test_a_stopped_training_keeps_what_is_finished(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    images = write_images(tmp_path / "images", "red tan", 10)
    run = tmp_path / "run"
    arguments = ["--data", str(images), "--epochs", "100000", "--workers", str(workers), "--output", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "elsa_ext.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("    2 "):
        assert process.poll() is None
    os.killpg(process.pid, number)  # all processes of the run, as a terminal and job schedulers do
    out, err = process.communicate(timeout=60)
    name = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert (process.returncode, err) == (128 + number, f"elsa-ext train: {name}\n")
    rows = (run / "metrics.csv").read_text().splitlines()[1:]
    assert f"after epoch {len(rows)}" in out
    assert torch.load(run / "checkpoint.pt", weights_only=True)["epoch"] == len(rows) >= 2
    assert sorted(file.name for file in run.iterdir()) == ["checkpoint.pt", "curves.png", "metrics.csv"]

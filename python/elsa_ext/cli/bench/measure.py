"""Timing contenders against each other, in rounds."""

import contextlib
import gc
import logging
import math
import re
import statistics
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import CommandError
from .contenders import OURS, Comparison, Contender, Task
from .memory import Memory, measure_memory

SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are repeated within a sample
LONG = 0.5  # seconds; longer calls are in fewer rounds, but for ours and what is not slower than twice ours
FEWEST_ROUNDS = 3
FLOORS = {"cpu": (2048, 2**25), "cuda": (8192, 2**28)}  # side of the matrices, float32 numbers that are copied


@dataclass
class Entrant:
    """A task with its samples."""

    contender: Contender
    direction: str
    task: Task
    memory: Memory
    seconds: float
    samples: list[float] = field(default_factory=list)
    failure: str = ""

    def rounds(self, repeats: int, ours: float) -> set[int]:
        """Return the rounds to take part in, spread evenly, where ours takes so many seconds."""
        count = repeats
        if self.seconds > max(LONG, 2 * ours):
            count = min(repeats, max(FEWEST_ROUNDS, round(repeats * LONG / self.seconds)))
        return {index * repeats // count for index in range(count)}


@dataclass(frozen=True)
class Absent:
    """A contender, or one of its directions, that this machine cannot measure, and why."""

    name: str
    direction: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.name}{'' if self.direction is None else f' {self.direction}'} ({self.reason})"


class Floors:
    """The rate of a matrix product and the bandwidth of a copy, sampled in the same rounds as everything else."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device = device
        # On a GPU the rate of the dtype's own units, on a CPU that of float32 for every dtype.
        self.dtype = dtype if device.type == "cuda" else "float32"
        side, numbers = FLOORS[device.type]
        left, right, out = (torch.randn(side, side, device=device).to(getattr(torch, self.dtype)) for _ in range(3))
        source = torch.zeros(numbers, device=device)
        target = torch.empty_like(source)
        self.multiply_adds, self.bytes = side**3, 2 * source.nbytes
        self.calls = (lambda: torch.mm(left, right, out=out), lambda: target.copy_(source))
        for call in self.calls:
            seconds_per_call(call, 1, device)

    def sample(self) -> tuple[float, float]:
        """Return the time of either in seconds."""
        product, copy = self.calls
        return seconds_per_call(product, 1, self.device), seconds_per_call(copy, 1, self.device)

    def rates(self, samples: list[tuple[float, float]]) -> dict[str, Any]:
        """Return what the medians of the samples mean: multiply-adds and bytes per second, in 10^9."""
        product, copy = (statistics.median(times) for times in zip(*samples, strict=True))
        return {
            "mm_dtype": self.dtype,
            "gfma_per_s": self.multiply_adds / product / 1e9,
            "gb_per_s": self.bytes / copy / 1e9,
        }


@dataclass(frozen=True)
class Measured:
    """What came of a comparison."""

    comparison: Comparison
    entrants: list[Entrant]
    absent: list[Absent]
    floors: dict[str, Any]


def measure(comparison: Comparison, repeats: int, floors: Floors, bar: Any) -> Measured:
    """Time the contenders of a comparison.

    Args:
        comparison: Whom to time at what.
        repeats: Number of rounds.
        floors: What is sampled beside them.
        bar: A tqdm bar, which shows how far it is.

    Raises:
        CommandError: Ours does not work.
    """
    entrants: list[Entrant] = []
    absent: list[Absent] = []
    with quiet():
        for contender in comparison.contenders():
            bar.set_description(f"{comparison.label}: warming up {contender.name}")
            found, failed = enter(contender, comparison.directions, floors.device)
            entrants += found
            absent += failed
            if contender.key == OURS and failed:
                raise CommandError(f"{comparison.label}: {failed[0]}")
        if any(failed.direction for failed in absent):
            # A call that the compiler failed on leaves a slower way for those that it had compiled.
            forget_compiled()
            for entrant in entrants:
                sample(entrant, floors.device)
        bar.set_description(comparison.label)
        with no_garbage_collection():
            rates = run_rounds(entrants, repeats, floors, bar)
    for entrant in entrants:
        if entrant.failure:
            absent.append(Absent(entrant.contender.name, entrant.direction, entrant.failure))
            if entrant.contender.key == OURS:
                raise CommandError(f"{comparison.label}: {absent[-1]}")
    return Measured(comparison, [entrant for entrant in entrants if not entrant.failure], absent, rates)


def run_rounds(entrants: list[Entrant], repeats: int, floors: Floors, bar: Any) -> dict[str, Any]:
    """Sample every entrant and the floors once a round; return the rates of the floors.

    Every second round goes backwards: who comes after whom decides what is in the caches.
    """
    ours = {entrant.direction: entrant.seconds for entrant in entrants if entrant.contender.key == OURS}
    schedule = [(entrant, entrant.rounds(repeats, ours[entrant.direction])) for entrant in entrants]
    bar.reset(sum(len(rounds) for _, rounds in schedule))
    floor_samples = []
    for number in range(repeats):
        floor_samples.append(floors.sample())
        for entrant, rounds in schedule[:: -1 if number % 2 else 1]:
            if number in rounds:
                entrant.samples += sample(entrant, floors.device)
                bar.update()
    return floors.rates(floor_samples)


def sample(entrant: Entrant, device: torch.device) -> list[float]:
    """Return one time of a call, or none if it fails or has failed before."""
    loops = max(1, math.ceil(SHORTEST_SAMPLE / entrant.seconds))
    if not entrant.failure:
        try:
            return [seconds_per_call(entrant.task.call, loops, device)]
        except Exception as error:  # such as memory that is short now and was not before
            entrant.failure = reason(error)
    return []


def enter(
    contender: Contender, directions: tuple[str, ...], device: torch.device
) -> tuple[list[Entrant], list[Absent]]:
    """Build and warm up a contender; return what it can do, and what not."""
    entrants: list[Entrant] = []
    try:
        tasks = contender.build()
    except Exception as error:  # whatever a library raises for what it lacks
        return [], [Absent(contender.name, None, reason(error))]
    absent = []
    for direction in directions:
        task = tasks[direction]
        try:
            first = seconds_per_call(task.call, 1, device)
            memory = measure_memory(task.call, device)
            seconds = min(first, seconds_per_call(task.call, 1, device))
        except Exception as error:
            absent.append(Absent(contender.name, direction, reason(error)))
        else:
            entrants.append(Entrant(contender, direction, task, memory, seconds))
    return entrants, absent


def forget_compiled() -> None:
    """Drop what torch.compile has made."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def reason(error: Exception) -> str:
    """Return the first sentence of an exception's message, or its class if it has none."""
    message = re.sub(r"\[enforce fail at .*?\] .*?\. ", "", str(error)).strip()  # what c10 says before it says what
    sentence = message.split(". ")[0].splitlines() or [type(error).__name__]
    return textwrap.shorten(sentence[0], 110, placeholder=" …").rstrip(".:")


def seconds_per_call(call: Callable[[], object], loops: int, device: torch.device) -> float:
    """Return the mean time of ``loops`` calls in a row."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(loops):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / loops
    begin = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - begin) / loops


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the contenders' libraries off the terminal."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector out of the times."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

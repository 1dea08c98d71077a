"""Signals that stop a command: they act like Ctrl-C, so that what is finished is kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

# Windows has no SIGHUP.
STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class SharedFlag(Protocol):
    """What ``multiprocessing.RawValue`` returns: a number that processes share, without a lock to wait for."""

    value: int


_pending: list[int] | None = None
"""The signal that `stop_noted` has noted; None where signals are not noted but raised."""


class Stopped(KeyboardInterrupt):
    """A signal other than that of Ctrl-C has asked the process to end."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` or ``Stopped`` at the first signal that asks the process to end; the next ends it.

    Signals that are ignored, as under ``nohup``, and those that somebody else handles, stay as they are. Python
    handles signals in its main thread alone: elsewhere this does nothing.
    """
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in STOPPING if here}
    taken = [number for number in before if before[number] in DEFAULTS]
    # torchrun passes on what a terminal or a scheduler has sent to all processes, and kills those that take too long.
    after = signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL

    def stop(number: int, _: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, after)
        if _pending is None:
            raise stopped_by(number)
        _pending.append(number)

    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextlib.contextmanager
def stop_noted() -> Iterator[list[int]]:
    """Give a list to which the first signal is added in place of raising, so that a step is never left half done.

    What is in it is for the caller to raise, by `stopped_by`. The second signal ends the process as ever.
    """
    global _pending
    before, _pending = _pending, []
    try:
        yield _pending
    finally:
        _pending = before


def stopped_by(number: int) -> KeyboardInterrupt:
    """Return the exception that a signal stands for."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


def let_finish(ending: "SharedFlag", _: int) -> None:
    """Let a data loader's worker, whose number is the last argument, live until ``ending`` is set by its process.

    Terminals and job schedulers send a signal to all processes of a run, whose own process still needs the images of
    the step that it is in. It ends its workers by SIGTERM, which hence counts once it has set ``ending``.
    """

    def end(*_: object) -> None:
        if ending.value:
            os._exit(0)

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)

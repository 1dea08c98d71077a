"""Signals that stop a command: they act like Ctrl-C, so that what is finished is kept."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


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

    def stop(number: int, _: FrameType | None) -> None:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def end_quietly(_: int) -> None:
    """Let a data loader's worker, whose number is the argument, end without an error at a signal.

    Terminals and job schedulers send it to all processes of a run. A worker that it kills is an error to torch, which
    would come in between while the run's own process keeps what is finished.
    """
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(0))

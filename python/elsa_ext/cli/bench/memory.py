"""How much memory a call needs."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

WATCHED = 0.05  # seconds; shorter calls are repeated for so long
PAUSE = 1e-4  # seconds between looks at what is allocated


class Memory(NamedTuple):
    """What a call needs, in bytes: the most that it holds at one time, and the most beside what it returns."""

    peak: int
    extra: int


def measure_memory(call: Callable[[], object], device: torch.device) -> Memory:
    """Return how much memory a call needs."""
    return of_cuda(call, device) if device.type == "cuda" else of_cpu(call)


def of_cuda(call: Callable[[], object], device: torch.device) -> Memory:
    """Ask PyTorch's allocator, which gives out all memory of the device."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    kept, peak = (ask(device) - before for ask in (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated))
    del result
    return Memory(peak, peak - kept)


def of_cpu(call: Callable[[], object]) -> Memory:
    """Ask PyTorch's profiler, and for what is not returned also the C library.

    The profiler sees all that PyTorch's allocator gives out, also inside of ops, but not what a library such as oneDNN,
    or a kernel of ours, allocates by itself. The C library does, at the moments at which it is asked.
    """
    # The profiler's library writes to stderr when it starts, whatever its user wants, unless it is told before.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        result = call()
    del result
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Memory(peak, max(peak, watch(call)) - held)


def watch(call: Callable[[], object]) -> int:
    """Return by how many bytes a call was seen to raise what is allocated; 0 where the C library is not glibc's.

    It runs in a thread of its own: OpenMP gives that new threads to work with, which have none of the scratch that
    threads keep from call to call.
    """
    failed: list[Exception] = []

    def run() -> None:
        end = time.perf_counter() + WATCHED
        try:
            call()
            while time.perf_counter() < end:
                call()
        except Exception as error:
            failed.append(error)

    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = Allocated
    thread = threading.Thread(target=run)
    before = most = library.mallinfo2().total()
    thread.start()
    while thread.is_alive():
        most = max(most, library.mallinfo2().total())
        thread.join(PAUSE)
    if failed:
        raise failed[0]
    return most - before


class Allocated(ctypes.Structure):
    """The answer of ``mallinfo2``."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple(zip(_names, [ctypes.c_size_t] * len(_names), strict=True))

    def total(self) -> int:
        """Return how many bytes are allocated: in heaps, and mapped one by one."""
        return int(self.uordblks + self.hblkhd)

"""How much memory a call needs."""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Memory(NamedTuple):
    """What a call needs, in bytes: the most that it holds at one time, and of that what it does not return.

    The first counts what PyTorch's allocator gives out, the second everything, whoever allocates it; None where the
    system does not tell.
    """

    peak: int
    extra: int | None


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
    """Ask PyTorch's profiler for what is allocated, also inside of ops, and the system for what the process needs.

    The profiler does not see what a library such as oneDNN, or a kernel of ours, allocates by itself.
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
    resident = peak_resident(call)
    return Memory(peak, None if resident is None else max(0, resident - held))


def peak_resident(call: Callable[[], object]) -> int | None:
    """Return by how many bytes the memory of the process grows for a call at most; None on other systems than Linux.

    In a thread of its own: OpenMP gives it new threads to work with, which have none of the scratch that threads keep
    from call to call.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or the call would find the memory of earlier ones, and not grow
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark is what there is now
    except (OSError, AttributeError, LookupError):
        return None
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return max(0, status("VmHWM") - before)


def status(name: str) -> int:
    """Return a number of bytes that the system knows of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024

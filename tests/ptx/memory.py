"""What the threads of a kernel read and write, with bounds, alignment, and who may see what of whom."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Fault(Exception):
    """A kernel did what a GPU would not do, or would do in any order."""


def check_alignment(addresses: Array, size: int) -> None:
    """Accesses of ``size`` bytes have to be multiples of it."""
    if (addresses % size).any():
        raise Fault(f"an access of {size} bytes is misaligned")


class GlobalMemory:
    """Arrays at addresses far from each other: what lies between belongs to nobody."""

    def __init__(self) -> None:
        self._regions: list[tuple[int, Array]] = []
        self._next = 1 << 32

    def add(self, array: Array) -> int:
        """Make a contiguous ``array`` known, and return its address. Kernels change it in place."""
        address, data = self._next, array.reshape(-1).view(np.uint8)
        assert np.shares_memory(data, array)
        self._regions.append((address, data))
        self._next += (data.size + (1 << 17)) & ~255
        return address

    def at(self, address: int, size: int) -> Array:
        """Return the bytes at an address."""
        for first, data in self._regions:
            if first <= address and address + size <= first + data.size:
                return data[address - first : address - first + size]
        raise Fault(f"nothing is at global address {address:#x}")


class SharedMemory:
    """A thread block's shared memory.

    Another thread sees what a thread has written after a barrier of the thread block; if it is of the same warp, after
    one of the warp. So must a thread wait before it overwrites what others read. Exchanges between lanes order nothing.
    """

    def __init__(self, size: int, warps: int) -> None:
        self.bytes = np.full(size, 0xFF, np.uint8)
        self._block_time = 1
        self._warp_times = np.ones(warps, np.int64)
        # Of every word of two bytes: who wrote it last and when; when each warp read it last, and by which lane, −1 for
        # several.
        words = (size + 1) // 2
        self._writer, self._written_in_block = np.zeros(words, np.int64), np.zeros(words, np.int64)
        self._written_in_warp = np.zeros(words, np.int64)
        self._read_in_block, self._read_in_warp, self._reader = (np.zeros((warps, words), np.int64) for _ in range(3))

    def pass_block_barrier(self) -> None:
        """All threads have waited for each other."""
        self._block_time += 1

    def pass_warp_barrier(self, warp: int) -> None:
        """The lanes of a warp have waited for each other."""
        self._warp_times[warp] += 1

    def read(self, warp: int, threads: Array, addresses: Array, size: int) -> Array:
        """Return what each of some threads of a warp finds, as rows of bytes."""
        words, owners = self._words(threads, addresses, size)
        self._check_writes(warp, words, owners, "reads what another thread has just written")
        now = (self._read_in_block[warp, words] == self._block_time) & (
            self._read_in_warp[warp, words] == self._warp_times[warp]
        )
        alone = ~now | (self._reader[warp, words] == owners)
        self._reader[warp, words] = np.where(alone, owners, -1)
        # Two lanes may read a word in the same instruction.
        self._reader[warp, words[self._reader[warp, words] != owners]] = -1
        self._read_in_block[warp, words] = self._block_time
        self._read_in_warp[warp, words] = self._warp_times[warp]
        return self.bytes[addresses[:, None] + np.arange(size)]

    def write(self, warp: int, threads: Array, addresses: Array, data: Array) -> None:
        """Store a row of bytes for each of some threads of a warp."""
        words, owners = self._words(threads, addresses, data.shape[1])
        if np.unique(words).size != words.size:
            raise Fault("two lanes write to one place")
        self._check_writes(warp, words, owners, "overwrites what another thread has just written")
        others = np.arange(len(self._warp_times)) != warp
        if (self._read_in_block[others][:, words] == self._block_time).any():
            raise Fault("overwrites what another warp may still have to read")
        now = (self._read_in_block[warp, words] == self._block_time) & (
            self._read_in_warp[warp, words] == self._warp_times[warp]
        )
        if (now & (self._reader[warp, words] != owners)).any():
            raise Fault("overwrites what another lane may still have to read")
        self._writer[words], self._written_in_block[words] = owners, self._block_time
        self._written_in_warp[words] = self._warp_times[warp]
        self.bytes[addresses[:, None] + np.arange(data.shape[1])] = data

    def _check_writes(self, warp: int, words: Array, owners: Array, what: str) -> None:
        recent = (self._written_in_block[words] == self._block_time) & (self._writer[words] != owners)
        seen = (self._writer[words] // 32 == warp) & (self._written_in_warp[words] < self._warp_times[warp])
        if (recent & ~seen).any():
            raise Fault(what)

    def _words(self, threads: Array, addresses: Array, size: int) -> tuple[Array, Array]:
        check_alignment(addresses, size)
        if (addresses < 0).any() or (addresses + size > self.bytes.size).any():
            raise Fault(f"shared memory has {self.bytes.size} bytes, and one at {addresses.max() + size} is used")
        count = max(size // 2, 1)
        words = (addresses[:, None] // 2 + np.arange(count)).reshape(-1)
        return words, np.repeat(threads, count)

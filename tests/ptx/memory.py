"""What the threads of a kernel read and write, with bounds, alignment, and who may see what of whom."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LANES = 32


class Fault(Exception):
    """A kernel did what a GPU would not do, or would do in any order."""


@dataclass(frozen=True)
class Access:
    """What some threads of a launch do to memory in one instruction, each at an address of its own."""

    threads: Array
    """Their numbers in the launch."""
    slots: Array
    """The numbers of their blocks among those that run together."""
    warp_times: Array
    """The barriers that their warps have passed, those of the block too, counted from 1."""
    block_times: Array
    """The barriers that their blocks have passed, counted from 1."""
    addresses: Array
    size: int
    block_threads: int
    used: tuple[bool, ...]
    """Of a load, whether anything reads the register that a part goes to."""

    def of(self, chosen: Array) -> "Access":
        """Return the part of some of the threads."""
        return self._with(self.addresses[chosen], self.size, lambda numbers: numbers[chosen])

    def of_words(self, size: int) -> "Access":
        """Return the same word by word, without words that are not used."""
        if self.size == size:
            return self
        offsets = np.flatnonzero(np.repeat(self.used, self.size // len(self.used)).reshape(-1, size).any(1)) * size
        addresses = (self.addresses[:, None] + offsets).reshape(-1)
        return self._with(addresses, size, lambda numbers: np.repeat(numbers, offsets.size))

    def _with(self, addresses: Array, size: int, change: Callable[[Array], Array]) -> "Access":
        threads, slots = change(self.threads), change(self.slots)
        warp_times, block_times = change(self.warp_times), change(self.block_times)
        return Access(threads, slots, warp_times, block_times, addresses, size, self.block_threads, self.used)

    def expect(self, good: Array, what: str) -> None:
        """Raise a Fault that names the first thread that is not good."""
        if not good.all():
            first = int(np.argmin(good))
            block, thread = divmod(int(self.threads[first]), self.block_threads)
            raise Fault(f"{what}: thread {thread} of block {block}, address {self.addresses[first]:#x}")

    def expect_alignment(self) -> None:
        """Accesses of some bytes have to be at multiples of them."""
        self.expect(self.addresses % self.size == 0, f"an access of {self.size} bytes is misaligned")


class Uses:
    """Who wrote each word of a memory last, and who has read it since.

    Another thread sees what a thread has written after a barrier of the thread block; if it is of the same warp, after
    one of the warp. So must a thread wait before it overwrites what others read. Exchanges between lanes order nothing,
    and nothing orders thread blocks. In the place of one reader, warp or block, −1 stands for several.
    """

    def __init__(self, words: int) -> None:
        self._writer, self._reader, self._reader_warp, self._reader_block = (np.full(words, -1) for _ in range(4))
        self._write_warp_time, self._write_block_time = np.zeros(words, np.int64), np.zeros(words, np.int64)
        self._read_warp_time, self._read_block_time = np.zeros(words, np.int64), np.zeros(words, np.int64)

    def forget(self) -> None:
        """Begin a launch, which sees what earlier ones have done."""
        self._writer[:] = -1
        self._read_block_time[:] = 0

    def read(self, words: Array, access: Access) -> None:
        """Every thread reads a word."""
        self._expect_order(words, access, "reads what another thread has just written")
        warps, blocks = access.threads // LANES, access.threads // access.block_threads
        unread = self._read_block_time[words] == 0
        same_block = unread | (self._reader_block[words] == blocks)
        first_of_block = unread | same_block & (self._read_block_time[words] < access.block_times)
        same_warp = first_of_block | (self._reader_warp[words] == warps)
        first_of_warp = first_of_block | same_warp & (self._read_warp_time[words] < access.warp_times)
        _name(self._reader, words, access.threads, first_of_warp | (self._reader[words] == access.threads))
        _name(self._reader_warp, words, warps, same_warp)
        _name(self._reader_block, words, blocks, same_block)
        self._read_warp_time[words], self._read_block_time[words] = access.warp_times, access.block_times

    def write(self, words: Array, access: Access) -> None:
        """Every thread writes a word."""
        self._expect_order(words, access, "overwrites what another thread has just written")
        warps, blocks = access.threads // LANES, access.threads // access.block_threads
        same_warp, same_block = self._reader_warp[words] == warps, self._reader_block[words] == blocks
        now = np.where(
            same_warp,
            (self._read_warp_time[words] == access.warp_times) & (self._reader[words] != access.threads),
            ~same_block | (self._read_block_time[words] == access.block_times),
        )
        read = self._read_block_time[words] > 0
        access.expect(~(read & now), "overwrites what another thread may still have to read")
        self._writer[words] = access.threads
        access.expect(self._writer[words] // LANES == warps, "two warps write to one place")
        self._write_warp_time[words], self._write_block_time[words] = access.warp_times, access.block_times

    def _expect_order(self, words: Array, access: Access, what: str) -> None:
        writer = self._writer[words]
        other = (writer >= 0) & (writer != access.threads)
        if not other.any():
            return
        seen = np.where(
            writer // LANES == access.threads // LANES,
            self._write_warp_time[words] < access.warp_times,
            (writer // access.block_threads == access.threads // access.block_threads)
            & (self._write_block_time[words] < access.block_times),
        )
        access.expect(~other | seen, what)


def _name(place: Array, words: Array, numbers: Array, alone: Array) -> None:
    """Write numbers to words, −1 where they are not alone there: several threads may be at one word."""
    numbers = np.where(alone, numbers, -1)
    place[words] = numbers
    place[words[place[words] != numbers]] = -1


def put(data: Array, places: Array, numbers: Array, access: Access) -> None:
    """Write an element of each thread. Lanes of a warp may write to one place, but not different numbers."""
    to = elements(data, access.size)
    to[places] = numbers
    access.expect(to[places] == numbers, "two lanes write to one place")


def elements(data: Array, size: int) -> Array:
    """Return bytes as elements of that many; what is left over at the end is left out."""
    return data[: data.size // size * size].view(f"V{size}")


class Region:
    """Memory of a tensor: numbers of one size, of which some may be read and some may be written."""

    def __init__(self, address: int, count: int, size: int) -> None:
        self.address, self.size, self.end = address, size, address + count * size
        self.data = np.ctypeslib.as_array((ctypes.c_uint8 * (count * size)).from_address(address))
        self.written, self.writable = np.zeros(count, bool), np.zeros(count, bool)
        self.uses = Uses(count)

    def read(self, access: Access) -> Array:
        spread, words = self._words(access)
        spread.expect(self.written[words], "reads what is not part of the tensor, or was never written")
        if self.writable.any():
            self.uses.read(words, spread)
        return elements(self.data, access.size)[(access.addresses - self.address) // access.size]

    def write(self, access: Access, data: Array) -> None:
        spread, words = self._words(access)
        spread.expect(self.writable[words], "writes to what it may only read")
        self.uses.write(words, spread)
        self.written[words] = True
        put(self.data, (access.addresses - self.address) // access.size, data, access)

    def _words(self, access: Access) -> tuple[Access, Array]:
        if access.size % self.size:
            raise Fault(f"an access of {access.size} bytes to numbers of {self.size}")
        spread = access.of_words(self.size)
        return spread, (spread.addresses - self.address) // self.size


class GlobalMemory:
    """Regions at their addresses: what lies between belongs to nobody."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}

    def region(self, address: int, count: int, size: int) -> Region:
        """Return the region that begins there, a new one if there is none yet."""
        if address not in self._regions:
            self._regions[address] = Region(address, count, size)
        return self._regions[address]

    def begin_launch(self) -> None:
        for region in self._regions.values():
            region.uses.forget()

    def read(self, access: Access) -> Array:
        """Return what each thread finds, as an element without a type."""
        access.expect_alignment()
        found = np.zeros(access.addresses.size, f"V{access.size}")
        for region, chosen in self._parts(access):
            found[chosen] = region.read(access.of(chosen))
        return found

    def write(self, access: Access, data: Array) -> None:
        access.expect_alignment()
        for region, chosen in self._parts(access):
            region.write(access.of(chosen), data[chosen])

    def _parts(self, access: Access) -> list[tuple[Region, Array]]:
        """Return the regions that threads use, and which threads these are."""
        parts, missing = [], np.ones(access.addresses.size, bool)
        for region in self._regions.values():
            inside = (region.address <= access.addresses) & (access.addresses + access.size <= region.end)
            if inside.any():
                parts.append((region, np.flatnonzero(inside)))
                missing &= ~inside
        access.expect(~missing, "no tensor is there")
        return parts


class SharedMemory:
    """The shared memory of thread blocks: the n-th begins at n times the pitch.

    ``word`` is the least number of bytes that an instruction of the kernel reads or writes.
    """

    def __init__(self, size: int, blocks: int, word: int) -> None:
        self._size, self._pitch, self._word = size, -(-size // 16) * 16, word
        self._data = np.zeros(self._pitch * blocks, np.uint8)
        self._written = np.zeros(self._data.size // word, bool)
        self._uses = Uses(self._written.size)

    def read(self, access: Access) -> Array:
        """Return what each thread finds, as an element without a type."""
        spread, words = self._words(access)
        spread.expect(self._written[words], "reads shared memory that was never written")
        self._uses.read(words, spread)
        return elements(self._data, access.size)[self._places(access)]

    def write(self, access: Access, data: Array) -> None:
        spread, words = self._words(access)
        self._uses.write(words, spread)
        self._written[words] = True
        put(self._data, self._places(access), data, access)

    def _words(self, access: Access) -> tuple[Access, Array]:
        access.expect_alignment()
        inside = (access.addresses >= 0) & (access.addresses + access.size <= self._size)
        access.expect(inside, f"shared memory has {self._size} bytes")
        spread = access.of_words(self._word)
        return spread, self._places(spread)

    def _places(self, access: Access) -> Array:
        return (access.slots * self._pitch + access.addresses) // access.size

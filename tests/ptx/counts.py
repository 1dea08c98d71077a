"""What a launch costs: instructions by kind, turns of shared memory, lines and sectors of the L1 cache."""

from collections import Counter

import numpy as np
from ptx.memory import LANES, Access, Array
from ptx.program import Instruction

BANKS, BANK_BYTES = 32, 4
SECTOR_BYTES, LINE_BYTES = 32, 128

KINDS = {"mma": "tensor cores", "ld": "loads and stores", "st": "loads and stores", "ldmatrix": "loads and stores",
         "shfl": "shuffles", "ex2": "special functions", "mov": "copies", "cvta": "copies"}  # fmt: skip


class Counts:
    """Sums over all warps of a launch."""

    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        self.wavefronts = 0
        """The turns that shared memory takes: one for what lies in different banks."""
        self.sectors = 0
        self.tags = 0
        """The lines that the L1 cache looks up."""

    def issue(self, instruction: Instruction, warps: int) -> None:
        """Some warps run an instruction."""
        arithmetic = "float32" if instruction.parts[-1] == "f32" else "others"
        self.instructions[KINDS.get(instruction.parts[0], arithmetic)] += warps

    def access(self, space: str, access: Access) -> None:
        """Threads read or write."""
        if space == "shared":
            self.wavefronts += wavefronts(access)
        else:
            warps = access.threads // LANES
            self.sectors += distinct(warps, access.addresses // SECTOR_BYTES).size
            self.tags += distinct(warps, access.addresses // LINE_BYTES).size


def distinct(groups: Array, numbers: Array) -> Array:
    """Return pairs, each once, as numbers; those of a group lie side by side."""
    return np.unique(groups << 48 | numbers)


def wavefronts(access: Access) -> int:
    """Return the turns: 128 bytes of a warp, in accesses of 8 bytes of half of it, of 16 bytes of a quarter, make one.

    If some of these words lie in one bank, each of them takes a turn.
    """
    groups = access.threads // LANES * 4 + access.threads % LANES * max(access.size, 4) // 128
    count = max(access.size // BANK_BYTES, 1)
    words = (access.addresses[:, None] // BANK_BYTES + np.arange(count)).reshape(-1)
    found = distinct(np.repeat(groups, count), words)
    turns = Counter((found >> 48 << 8 | found % BANKS).tolist())
    longest: dict[int, int] = {}
    for group_and_bank, number in turns.items():
        group = group_and_bank >> 8
        longest[group] = max(longest.get(group, 0), number)
    return sum(longest.values())

"""Rows that hold every pair of values of several parameters: far fewer than the product of all."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

Row = tuple[Any, ...]


def pairwise(*factors: Sequence[Any]) -> list[Row]:
    """Return rows, one value of each factor in each, in which every two values of two factors meet at least once.

    Greedy and deterministic: a row starts with the first pair that is missing, and takes for every other factor the
    value that brings most missing pairs, the least used one of equals.
    """
    sizes = [len(factor) for factor in factors]
    missing = {
        ((i, a), (j, b)): None  # a dict, which keeps its order
        for i, j in combinations(range(len(factors)), 2)
        for a in range(sizes[i])
        for b in range(sizes[j])
    }
    used = {(i, a): 0 for i, size in enumerate(sizes) for a in range(size)}
    rows = []
    while missing:
        chosen = dict(next(iter(missing)))
        for i, size in enumerate(sizes):
            if i not in chosen:
                gains = [
                    (sum(tuple(sorted([(i, a), other])) in missing for other in chosen.items()), -used[i, a])
                    for a in range(size)
                ]
                chosen[i] = gains.index(max(gains))
        for pair in combinations(sorted(chosen.items()), 2):
            missing.pop(pair, None)
        for item in chosen.items():
            used[item] += 1
        rows.append(tuple(factor[chosen[i]] for i, factor in enumerate(factors)))
    return rows

"""The rows that stand for a product of parameters."""

from itertools import combinations

import pytest
from ops.pairwise import pairwise


@pytest.mark.parametrize("sizes", [(2, 2), (6, 7), (1, 5), (2, 2, 2, 2, 2, 2), (6, 6, 7, 6), (4, 1, 9, 3)], ids=str)
def test_every_pair_is_there(sizes: tuple[int, ...]) -> None:
    factors = [[f"{index}.{value}" for value in range(size)] for index, size in enumerate(sizes)]
    rows = pairwise(*factors)
    assert all(value in factor for row in rows for value, factor in zip(row, factors, strict=True))
    for i, j in combinations(range(len(factors)), 2):
        assert {(row[i], row[j]) for row in rows} == {(a, b) for a in factors[i] for b in factors[j]}


def test_there_are_few_rows() -> None:
    assert len(pairwise(*[range(2)] * 6)) <= 8  # of 64
    assert len(pairwise(range(6), range(6), range(7), range(6))) <= 60  # of 1,512
    assert len(pairwise(range(5), range(4))) == 20  # two factors: the product


def test_the_rows_are_the_same_every_time() -> None:
    factors = ["abc", "de", "fghi"]
    assert pairwise(*factors) == pairwise(*factors)


def test_no_row_where_there_is_no_value() -> None:
    assert pairwise("abc", "") == []

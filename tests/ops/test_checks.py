"""The yardstick of the tests."""

import numpy as np
import pytest
import torch
from ops.cases import Case, make, make_grad
from ops.checks import NoYardstick, assert_close, formula
from ops.registry import DEFAULT
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_the_formula_is_computed_on_the_cpu(case: Case) -> None:
    with FakeTensorMode():
        results = formula(case, make(case, torch.float32, "meta"), make_grad(case, torch.float32, "meta", "contiguous"))
    assert {result.device.type for result in results.values()} == {"cpu"}


def test_what_a_backend_may_be_off() -> None:
    def off_by(units: int) -> torch.Tensor:
        return torch.tensor([1 + units * torch.finfo(torch.float32).eps, 1.0])

    exact = np.ones(2)
    for plain, most in ((0, 4), (3, 10), (16, 36), (30, 36)):  # the formula's units, and a backend's at most
        assert_close("out", off_by(most), off_by(plain), exact)
        with pytest.raises(AssertionError, match=f"error {most + 1}.00 eps, of the formula {plain}.00 eps"):
            assert_close("out", off_by(most + 1), off_by(plain), exact)
    with pytest.raises(NoYardstick):
        assert_close("out", off_by(0), off_by(33), exact)

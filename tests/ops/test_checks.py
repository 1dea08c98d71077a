"""The yardstick of the tests."""

import pytest
import torch
from ops.cases import Case, make, make_grad
from ops.checks import formula
from ops.registry import DEFAULT
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_the_formula_is_computed_on_the_cpu(case: Case) -> None:
    with FakeTensorMode():
        results = formula(case, make(case, torch.float32, "meta"), make_grad(case, torch.float32, "meta", "contiguous"))
    assert {result.device.type for result in results.values()} == {"cpu"}

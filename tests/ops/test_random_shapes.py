"""Random sizes, options, dtypes and layouts, all against the oracle."""

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ops.backends import EMULATED, NATIVE, Backend
from ops.cases import DTYPES, GRAD_LAYOUTS, LAYOUTS
from ops.checks import NoYardstick, check
from ops.registry import OPS
from ops.spec import Op


# The emulated kernels take several times as long for the same calls.
@pytest.mark.parametrize(
    "native",
    [pytest.param(each, marks=pytest.mark.slow if each is EMULATED else pytest.mark.thorough) for each in NATIVE],
    ids=str,
    indirect=True,
)
@pytest.mark.parametrize("op", OPS, ids=str)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_call(native: Backend, op: Op, data: st.DataObject) -> None:
    case = data.draw(op.random)
    dtype = data.draw(st.sampled_from(DTYPES))
    matrix_dtype = data.draw(st.sampled_from([None, torch.float32])) if dtype.itemsize == 2 else None
    layouts = {name: data.draw(st.sampled_from(LAYOUTS)) for name in case.images}
    layouts["grad"] = data.draw(st.sampled_from(GRAD_LAYOUTS))
    try:
        check(case, native.device, dtype, matrix_dtype, layouts)
    except NoYardstick:  # sums that nearly cancel, or of numbers that are all equal; others test the formula
        assume(False)

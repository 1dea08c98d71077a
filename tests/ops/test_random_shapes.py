"""Random sizes, options, dtypes and layouts, all against the oracle."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ops.backends import Backend
from ops.cases import DTYPES, GRAD_LAYOUTS, LAYOUTS, GhostHead, HadamardAttention
from ops.checks import check

bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
layouts = st.sampled_from(LAYOUTS)
dtypes = st.sampled_from(DTYPES)
matrices = st.sampled_from(["none", "shared", "sample"])
kernel_sizes = st.sampled_from([1, 3, 5, 7, 9])


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, int]:
    """What both ops share."""
    stride = draw(st.integers(1, 3))
    return {
        "batch": draw(st.integers(1, 3)),
        "heads": draw(st.integers(1, 5)),
        "height": draw(st.integers(stride, 14)),
        "width": draw(st.integers(stride, 14)),
        "kernel_size": draw(kernel_sizes),
        "dilation": draw(st.integers(1, 4)),
        "stride": stride,
    }


@bounded
@given(
    sizes=sizes(),
    width_of_head=st.integers(1, 40),
    mul=matrices,
    add=matrices,
    dtype=dtypes,
    wide_matrices=st.booleans(),
    layout=st.fixed_dictionaries({"value": layouts, "attn": layouts, "grad": st.sampled_from(GRAD_LAYOUTS)}),
)
def test_ghost_head(
    backend: Backend,
    sizes: dict[str, int],
    width_of_head: int,
    mul: str,
    add: str,
    dtype: torch.dtype,
    wide_matrices: bool,
    layout: dict[str, str],
) -> None:
    case = GhostHead(**sizes, channels=sizes["heads"] * width_of_head, mul=mul, add=add)
    matrix_dtype = torch.float32 if wide_matrices and dtype.itemsize == 2 else None
    check(case, backend.device, dtype, matrix_dtype, layout)


@bounded
@given(
    sizes=sizes(),
    groups=st.integers(1, 4),
    group_width=st.integers(1, 6),
    grouped_projection=st.booleans(),
    proj_rank=st.sampled_from([2, 4]),
    scale=st.sampled_from([-1.5, 0.1, 0.7, 1.0, 3.0]),
    biases=st.tuples(st.booleans(), st.booleans()),
    dtype=dtypes,
    layout=st.fixed_dictionaries({"query": layouts, "key": layouts, "grad": layouts}),
)
def test_hadamard_attention(
    backend: Backend,
    sizes: dict[str, int],
    groups: int,
    group_width: int,
    grouped_projection: bool,
    proj_rank: int,
    scale: float,
    biases: tuple[bool, bool],
    dtype: torch.dtype,
    layout: dict[str, str],
) -> None:
    heads = sizes["heads"]
    case = HadamardAttention(
        **sizes,
        channels=groups * group_width * heads,
        groups=groups,
        proj_groups=heads if grouped_projection else 1,
        proj_rank=proj_rank,
        scale=scale,
        conv_bias=biases[0],
        proj_bias=biases[1],
    )
    check(case, backend.device, dtype, layouts=layout)

"""Sizes and options that all ops share, at random."""

from hypothesis import strategies as st


@st.composite
def sizes_and_options(draw: st.DrawFn) -> dict[str, int]:
    """Everything that every op has but its channels."""
    stride = draw(st.integers(1, 3))
    return {
        "batch": draw(st.integers(1, 3)),
        "heads": draw(st.integers(1, 5)),
        "height": draw(st.integers(stride, 14)),
        "width": draw(st.integers(stride, 14)),
        "kernel_size": draw(st.sampled_from([1, 3, 5, 7, 9])),
        "dilation": draw(st.integers(1, 4)),
        "stride": stride,
    }

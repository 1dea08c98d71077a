"""The functions of natten.functional, in the arguments and layouts of natten 0.14 to 0.21."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor

from ...ops import autocast
from ...ops.ghost_head import ghost_head
from ...ops.neighborhood_attention import neighborhood_attention
from ...ops.neighborhood_logits import neighborhood_logits
from .absent import PLACE, absent, refuse
from .checks import bias, check_attention, check_products, check_weights, sizes
from .layouts import choose, heads_first, heads_last

__all__ = [
    "attention",
    "merge_attentions",
    "na1d",
    "na1d_av",
    "na1d_qk",
    "na1d_qk_with_bias",
    "na2d",
    "na2d_av",
    "na2d_qk",
    "na2d_qk_with_bias",
    "na3d",
    "na3d_av",
    "na3d_qk",
    "na3d_qk_with_bias",
    "natten1dav",
    "natten1dqk",
    "natten1dqkrpb",
    "natten2dav",
    "natten2dqk",
    "natten2dqkrpb",
    "natten3dav",
    "natten3dqk",
    "natten3dqkrpb",
    "neighborhood_attention_generic",
]

Sizes: TypeAlias = int | Sequence[int]
Flags: TypeAlias = bool | Sequence[bool]

# Of natten 0.17 to 0.21, and what they choose changes no number: tiles, schedules, compilation.
_TUNING = {
    "attention_kwargs",
    "q_tile_shape",
    "kv_tile_shape",
    "backward_q_tile_shape",
    "backward_kv_tile_shape",
    "backward_kv_splits",
    "backward_use_pt_reduction",
    "run_persistent_kernel",
    "kernel_schedule",
    "torch_compile",
    "try_fuse_additional_kv",
    "xformers_kwargs",
}


def na1d(query: Tensor, key: Tensor, value: Tensor, kernel_size: Sizes, *ambiguous: Any, **options: Any) -> Tensor:
    """Attend to neighbourhoods of sequences: ``out_i = Σ_t softmax_t(scale · q_i·k_t + rpb_{t−i}) · v_t``.

    Args:
        query: (B, L, heads, dim), in any layout; nothing is copied if query, key and value lie in memory alike.
        key: Like ``query``; of fewer heads, each of them is for several of query.
        value: Like ``key``, with channels of its own.
        kernel_size: K, a number or a tuple of one, as the other sizes.
        *ambiguous: None: natten 0.17 takes ``dilation`` here, 0.21 takes ``stride``. ``install`` decides which.
        **options: By name ``stride``, ``dilation``, ``is_causal``, ``rpb`` of shape (heads, 2·K − 1), and ``scale``,
            by default dim^−½. What tunes kernels is taken and does nothing.

    Returns:
        (B, L, heads, channels of value).

    Raises:
        NotImplementedError: Of what natten has and this package has not: ``additional_keys``, ``backend``,
            ``return_lse``, nested tensors.
        RuntimeError: From `elsa_ext.neighborhood_attention`.
        TypeError: A position or a name is not known.
        ValueError: A tensor has another shape, or a size is not one for all axes or one for each.
    """
    return _attention("na1d", 1, (query, key, value), kernel_size, ambiguous, **options)


def na2d(query: Tensor, key: Tensor, value: Tensor, kernel_size: Sizes, *ambiguous: Any, **options: Any) -> Tensor:
    """Attend to neighbourhoods of maps: `na1d` of (B, H, W, heads, dim), with K or (Kh, Kw), and so the other sizes.

    ``rpb`` is (heads, 2·Kh − 1, 2·Kw − 1).
    """
    return _attention("na2d", 2, (query, key, value), kernel_size, ambiguous, **options)


def neighborhood_attention_generic(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: Sizes, *ambiguous: Any, **options: Any
) -> Tensor:
    """Call `na1d` or `na2d`, by the dimensions of ``query``."""
    function = {4: na1d, 6: na3d}.get(query.ndim, na2d)
    return function(query, key, value, kernel_size, *ambiguous, **options)


def na1d_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: Sizes,
    dilation: Sizes | None = 1,
    additional_keys: Tensor | None = None,
    is_causal: Flags | None = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """Multiply the queries of sequences with the keys of their neighbourhoods: ``logit_{i,t} = q_i·k_t + rpb_{t−i}``.

    Args:
        query: (B, heads, L, dim), scaled already, in any layout.
        key: Like ``query``.
        kernel_size: K, a number or a tuple of one, as what follows.
        dilation: Distance of neighbours.
        additional_keys: None.
        is_causal: Attend to nothing after the query.
        rpb: (heads, 2·K − 1), or None.

    Returns:
        (B, heads, L, K), −∞ where a tap does not count.

    Raises:
        NotImplementedError: ``additional_keys`` are given, or nested tensors.
        RuntimeError: From `elsa_ext.neighborhood_logits`.
        ValueError: A tensor has another shape, or a size is not one for all axes or one for each.
    """
    return _logits("na1d_qk", 1, query, key, rpb, kernel_size, dilation, is_causal, additional_keys)


def na2d_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: Sizes,
    dilation: Sizes | None = 1,
    additional_keys: Tensor | None = None,
    is_causal: Flags | None = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """Multiply the queries of maps with the keys of their neighbourhoods: `na1d_qk` of (B, heads, H, W, dim).

    Sizes are K or (Kh, Kw), ``rpb`` is (heads, 2·Kh − 1, 2·Kw − 1), the result (B, heads, H, W, Kh·Kw).
    """
    return _logits("na2d_qk", 2, query, key, rpb, kernel_size, dilation, is_causal, additional_keys)


def na1d_av(
    attn: Tensor,
    value: Tensor,
    kernel_size: Sizes,
    dilation: Sizes | None = 1,
    additional_values: Tensor | None = None,
    is_causal: Flags | None = False,
) -> Tensor:
    """Add up the values of the neighbourhoods of sequences: ``out_i = Σ_t attn_{i,t} · v_t``.

    Args:
        attn: (B, heads, L, K), in any dtype.
        value: (B, heads, L, dim).
        kernel_size: As of `na1d_qk`, and so what follows.
        dilation: Distance of neighbours.
        additional_values: None.
        is_causal: As of `na1d_qk`.

    Returns:
        (B, heads, L, dim).

    Raises:
        NotImplementedError: ``additional_values`` are given, or nested tensors.
        RuntimeError: From `elsa_ext.ghost_head`.
        ValueError: A tensor has another shape, or a size is not one for all axes or one for each.
    """
    return _aggregate("na1d_av", 1, attn, value, kernel_size, dilation, is_causal, additional_values)


def na2d_av(
    attn: Tensor,
    value: Tensor,
    kernel_size: Sizes,
    dilation: Sizes | None = 1,
    additional_values: Tensor | None = None,
    is_causal: Flags | None = False,
) -> Tensor:
    """Add up the values of the neighbourhoods of maps: `na1d_av` of (B, heads, H, W, dim) and sizes of both axes.

    ``attn`` is (B, heads, H, W, Kh·Kw).
    """
    return _aggregate("na2d_av", 2, attn, value, kernel_size, dilation, is_causal, additional_values)


def na1d_qk_with_bias(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    dilation: int,
    additional_keys: Tensor | None = None,
) -> Tensor:
    """Name of `na1d_qk` with a bias in natten 0.15."""
    return na1d_qk(query, key, kernel_size, dilation, additional_keys, rpb=bias)


def na2d_qk_with_bias(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    dilation: int,
    additional_keys: Tensor | None = None,
) -> Tensor:
    """Name of `na2d_qk` with a bias in natten 0.15."""
    return na2d_qk(query, key, kernel_size, dilation, additional_keys, rpb=bias)


def natten1dqkrpb(query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na1d_qk` in natten 0.14."""
    return na1d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten2dqkrpb(query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na2d_qk` in natten 0.14."""
    return na2d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten1dqk(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na1d_qk` without a bias in natten 0.14."""
    return na1d_qk(query, key, kernel_size, dilation)


def natten2dqk(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na2d_qk` without a bias in natten 0.14."""
    return na2d_qk(query, key, kernel_size, dilation)


def natten1dav(attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na1d_av` in natten 0.14."""
    return na1d_av(attn, value, kernel_size, dilation)


def natten2dav(attn: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Name of `na2d_av` in natten 0.14."""
    return na2d_av(attn, value, kernel_size, dilation)


na3d = absent("na3d", "3-D")
na3d_qk = absent("na3d_qk", "3-D")
na3d_av = absent("na3d_av", "3-D")
na3d_qk_with_bias = absent("na3d_qk_with_bias", "3-D")
natten3dqk = absent("natten3dqk", "3-D")
natten3dqkrpb = absent("natten3dqkrpb", "3-D")
natten3dav = absent("natten3dav", "3-D")
attention = absent("attention", "attention without a neighbourhood")
merge_attentions = absent("merge_attentions", "log-sum-exp")


def _attention(
    name: str,
    axes: int,
    tensors: Sequence[Tensor],
    kernel_size: Sizes,
    ambiguous: Sequence[Any],
    *,
    stride: Sizes | None = 1,
    dilation: Sizes | None = 1,
    is_causal: Flags | None = False,
    rpb: Tensor | None = None,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    backend: str | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> Tensor:
    """Attend, in either generation's arguments, over (B, …, heads, dim)."""
    if ambiguous:
        raise TypeError(
            f"{PLACE}: {name} takes what follows kernel_size by name: it is dilation in natten 0.17, "
            "and stride in 0.21; install(version) takes it by position"
        )
    if unknown := tuning.keys() - _TUNING:
        raise TypeError(f"{PLACE}: {name} has no argument {', '.join(sorted(unknown))}")
    refuse(
        name,
        tensors,
        additional_keys=additional_keys,
        additional_values=additional_values,
        backend=backend,
        return_lse=return_lse or None,
    )
    query, key, value = tensors
    check_attention(name, axes, query, key, value)
    options = _neighbourhood(name, axes, kernel_size, dilation, is_causal, stride)
    query, key, value = map(heads_first, tensors)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (tensor.repeat_interleave(shared, dim=1) for tensor in (key, value))
    table = bias(name, axes, rpb, query, options["kernel_size"])
    query, key, value = _as_maps(axes, query, key, value)
    layout = choose(query, key, value)
    out = neighborhood_attention(
        layout.to_map(query),
        layout.to_map(key),
        layout.to_map(value),
        None if table is None else layout.to_bias(table),
        heads=layout.heads,
        scale=scale or query.shape[-1] ** -0.5,
        **options,
    )
    attended = layout.from_map(out)
    return heads_last(attended.squeeze(2) if axes == 1 else attended)


def _logits(
    name: str,
    axes: int,
    query: Tensor,
    key: Tensor,
    rpb: Tensor | None,
    kernel_size: Sizes,
    dilation: Sizes | None,
    is_causal: Flags | None,
    additional_keys: Tensor | None,
) -> Tensor:
    """Compute logits, (B, heads, …, taps), of tensors (B, heads, …, dim)."""
    refuse(name, (query, key), additional_keys=additional_keys)
    check_products(name, axes, query, key)
    options = _neighbourhood(name, axes, kernel_size, dilation, is_causal)
    table = bias(name, axes, rpb, query, options["kernel_size"])
    query, key = _as_maps(axes, query, key)
    layout = choose(query, key)
    logits = layout.from_map(
        neighborhood_logits(
            layout.to_map(query),
            layout.to_map(key),
            None if table is None else layout.to_bias(table),
            heads=layout.heads,
            **options,
        )
    )
    return logits.squeeze(2) if axes == 1 else logits


def _aggregate(
    name: str,
    axes: int,
    attn: Tensor,
    value: Tensor,
    kernel_size: Sizes,
    dilation: Sizes | None,
    is_causal: Flags | None,
    additional_values: Tensor | None,
) -> Tensor:
    """Add up neighbours, (B, heads, …, dim), of tensors (B, heads, …, taps) and (B, heads, …, dim)."""
    refuse(name, (attn, value), additional_values=additional_values)
    options = _neighbourhood(name, axes, kernel_size, dilation, is_causal)
    check_weights(name, axes, attn, value, options["kernel_size"])
    if not autocast.is_enabled(value.device.type):
        attn = attn.to(value.dtype)  # a softmax may have been computed in more
    attn, value = _as_maps(axes, attn, value)
    layout = choose(attn, value)
    out = layout.from_map(ghost_head(layout.to_map(value), layout.to_map(attn), **options))
    return out.squeeze(2) if axes == 1 else out


def _as_maps(axes: int, *tensors: Tensor) -> Sequence[Tensor]:
    """View sequences (B, heads, L, channels) as maps of one row."""
    return [tensor.unsqueeze(2) for tensor in tensors] if axes == 1 else tensors


def _neighbourhood(
    name: str,
    axes: int,
    kernel_size: Sizes,
    dilation: Sizes | None,
    is_causal: Flags | None,
    stride: Sizes | None = 1,
) -> dict[str, Any]:
    """Return the options of the ops; sequences are maps of one row."""
    row = [1] * (2 - axes)
    causal = sizes(name, "is_causal", False if is_causal is None else is_causal, axes)
    return {
        "kernel_size": row + sizes(name, "kernel_size", kernel_size, axes),
        "dilation": row + sizes(name, "dilation", 1 if dilation is None else dilation, axes),
        "border": "shift",
        "window_stride": row + sizes(name, "stride", 1 if stride is None else stride, axes),
        "causal": [False] * (2 - axes) + [bool(flag) for flag in causal],
    }

"""What programs import of natten beside functions and modules: names of types, checks of sizes, counts of FLOPs."""

import logging
import math
from types import GenericAlias
from typing import Any

from ...ops.flops import fvcore_handles
from .absent import absent
from .checks import sizes


def _types() -> dict[str, Any]:
    """Return the names in ``natten.types`` that arguments are annotated with."""
    found: dict[str, Any] = {"NoneType": type(None)}
    for kind, of in (("Dimension", int), ("CausalArg", bool)):
        aliases = {f"{kind}Type": GenericAlias(tuple, (of, ...))}
        aliases |= {f"{kind}{axes}DType": GenericAlias(tuple, (of,) * axes) for axes in (1, 2, 3)}
        found |= aliases | {f"{name}OrDed": of | alias for name, alias in aliases.items()}
    return found


def check_kernel_size_arg(na_dim: int, kernel_size: Any) -> tuple[int, ...]:
    """Return one size for each of ``na_dim`` axes."""
    return tuple(sizes("check_kernel_size_arg", "kernel_size", kernel_size, na_dim))


def check_stride_arg(na_dim: int, stride: Any) -> tuple[int, ...]:
    """Return one stride for each of ``na_dim`` axes; None means 1."""
    return tuple(sizes("check_stride_arg", "stride", 1 if stride is None else stride, na_dim))


def check_dilation_arg(na_dim: int, dilation: Any) -> tuple[int, ...]:
    """Return one dilation for each of ``na_dim`` axes; None means 1."""
    return tuple(sizes("check_dilation_arg", "dilation", 1 if dilation is None else dilation, na_dim))


def check_causal_arg(na_dim: int, is_causal: Any) -> tuple[bool, ...]:
    """Return one flag for each of ``na_dim`` axes; None means False."""
    return tuple(sizes("check_causal_arg", "is_causal", False if is_causal is None else is_causal, na_dim))


def check_all_args(na_dim: int, kernel_size: Any, dilation: Any, is_causal: Any) -> tuple[Any, Any, Any]:
    """Return kernel size, dilation and flag of each axis, as natten 0.17 does."""
    return (
        check_kernel_size_arg(na_dim, kernel_size),
        check_dilation_arg(na_dim, dilation),
        check_causal_arg(na_dim, is_causal),
    )


def check_all_args_021(
    na_dim: int, kernel_size: Any, stride: Any, dilation: Any, is_causal: Any
) -> tuple[Any, Any, Any, Any]:
    """Return kernel size, stride, dilation and flag of each axis, as natten 0.21 does."""
    kernel_size, dilation, is_causal = check_all_args(na_dim, kernel_size, dilation, is_causal)
    return kernel_size, check_stride_arg(na_dim, stride), dilation, is_causal


def add_natten_handle(flop_ctr: Any) -> Any:
    """Let a ``FlopCountAnalysis`` of fvcore count the ops, one for a multiply-add, and return it."""
    return flop_ctr.set_op_handle(**fvcore_handles())


def get_flops(model: Any, input: Any, disable_warnings: bool = False) -> int:
    """Return the multiply-adds of ``model(input)`` by fvcore."""
    from fvcore.nn import FlopCountAnalysis  # type: ignore[import-not-found]

    counter = add_natten_handle(FlopCountAnalysis(model, input))
    return (counter.unsupported_ops_warnings(False) if disable_warnings else counter).total()


TYPES = _types()
CHECKS = {
    check.__name__: check for check in (check_all_args, check_kernel_size_arg, check_dilation_arg, check_causal_arg)
} | {"get_num_na_weights": math.prod}
CHECKS_021 = CHECKS | {"check_all_args": check_all_args_021, "check_stride_arg": check_stride_arg}
LOG = {"get_logger": logging.getLogger}
FLOPS = {"add_natten_handle": add_natten_handle, "get_flops": get_flops} | {
    name: absent(name, "count of this name: add_natten_handle counts all that is there")
    for name in (
        *("qk_rpb_flop", "av_flop", "fna_flop_count", "na_qk_flop_count", "na_av_flop_count"),
        *(f"{kind}_{axes}d_{end}" for axes in (1, 2, 3) for kind, end in (("qk", "rpb_flop"), ("av", "flop"))),
    )
}

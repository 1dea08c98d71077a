"""What natten says of itself, and its switches, which change nothing here: there is one way to compute."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch

from ... import _torch_private as private

__all__ = [
    "HAS_LIBNATTEN",
    "MemoryUsagePreference",
    "allow_flex_compile",
    "allow_flex_compile_backprop",
    "are_deterministic_algorithms_enabled",
    "disable_autotuner",
    "disable_flex_compile",
    "disable_flex_compile_backprop",
    "disable_gemm_na",
    "disable_tf32",
    "disable_tiled_na",
    "enable_gemm_na",
    "enable_tf32",
    "enable_tiled_na",
    "force_flex_attention",
    "get_memory_usage_preference",
    "has_bfloat",
    "has_cuda",
    "has_fna",
    "has_fp32_gemm",
    "has_fp64_gemm",
    "has_fused_na",
    "has_gemm",
    "has_half",
    "has_tf32_gemm",
    "is_autotuner_enabled",
    "is_autotuner_enabled_for_backward",
    "is_autotuner_enabled_for_forward",
    "is_autotuner_thorough_for_backward",
    "is_autotuner_thorough_for_forward",
    "is_flex_compile_allowed",
    "is_flex_compile_backprop_allowed",
    "is_fna_enabled",
    "is_fused_na_enabled",
    "is_gemm_na_enabled",
    "is_kv_parallelism_in_fused_na_enabled",
    "is_memory_usage_default",
    "is_memory_usage_strict",
    "is_memory_usage_unrestricted",
    "is_tf32_in_gemm_na_enabled",
    "is_tiled_na_enabled",
    "set_memory_usage_preference",
    "use_autotuner",
    "use_deterministic_algorithms",
    "use_flex_attention",
    "use_fna",
    "use_fused_na",
    "use_gemm_na",
    "use_kv_parallelism_in_fused_na",
    "use_tf32_in_gemm_na",
    "use_tiled_na",
]

HAS_LIBNATTEN = True


class MemoryUsagePreference(Enum):
    """What `set_memory_usage_preference` takes."""

    Default = 0
    Strict = 1
    Unrestricted = 2


def has_cuda() -> bool:
    """Tell whether there are a CUDA device and kernels for it."""
    return torch.cuda.is_available() and private.has_kernel("elsa::neighborhood_attention", "cuda")


def has_fused_na() -> bool:
    """Tell that ``na1d`` and ``na2d`` compute without an attention map in memory: on every device."""
    return True


def has_half(device_index: Any = None) -> bool:
    """Tell that float16 is computed with: on every device."""
    return True


def has_bfloat(device_index: Any = None) -> bool:
    """Tell that bfloat16 is computed with: on every device."""
    return True


def has_gemm(device_index: Any = None) -> bool:
    """Tell that natten's kernels of matrix products are not here."""
    return False


has_fna = has_fused_na
has_tf32_gemm = has_fp32_gemm = has_fp64_gemm = has_gemm


def _switch(on: bool) -> tuple[Callable[..., bool], Callable[[], bool]]:
    """Return a function that sets something and one that tells what was set."""
    state = [on]

    def use(mode: bool = True, *others: Any, **options: Any) -> bool:
        """Set the switch, and return what it is; it changes nothing."""
        state[0] = mode
        return mode

    def is_on() -> bool:
        """Tell what the switch is; it changes nothing."""
        return state[0]

    return use, is_on


use_fused_na, is_fused_na_enabled = _switch(False)
use_kv_parallelism_in_fused_na, is_kv_parallelism_in_fused_na_enabled = _switch(False)
use_deterministic_algorithms, are_deterministic_algorithms_enabled = _switch(True)
use_gemm_na, is_gemm_na_enabled = _switch(False)
use_tiled_na, is_tiled_na_enabled = _switch(False)
use_tf32_in_gemm_na, is_tf32_in_gemm_na_enabled = _switch(False)
allow_flex_compile, is_flex_compile_allowed = _switch(False)
allow_flex_compile_backprop, is_flex_compile_backprop_allowed = _switch(False)
use_fna, is_fna_enabled = use_fused_na, is_fused_na_enabled
enable_gemm_na, enable_tiled_na, enable_tf32 = use_gemm_na, use_tiled_na, use_tf32_in_gemm_na


def disable_gemm_na() -> bool:
    """Set the switch to False."""
    return use_gemm_na(False)


def disable_tiled_na() -> bool:
    """Set the switch to False."""
    return use_tiled_na(False)


def disable_tf32() -> bool:
    """Set the switch to False."""
    return use_tf32_in_gemm_na(False)


def disable_flex_compile() -> bool:
    """Set the switch to False."""
    return allow_flex_compile(False)


def disable_flex_compile_backprop() -> bool:
    """Set the switch to False."""
    return allow_flex_compile_backprop(False)


def use_flex_attention() -> bool:
    """Set the switch of `use_fused_na` to True."""
    return use_fused_na(True)


force_flex_attention = use_flex_attention


def use_autotuner(*passes: Any, **options: Any) -> None:
    """Do nothing: there is nothing to tune."""


def disable_autotuner() -> None:
    """Do nothing: there is nothing to tune."""


def is_autotuner_enabled() -> bool:
    """Tell that there is nothing to tune."""
    return False


is_autotuner_enabled_for_forward = is_autotuner_enabled_for_backward = is_autotuner_enabled
is_autotuner_thorough_for_forward = is_autotuner_thorough_for_backward = is_autotuner_enabled

_preference = [MemoryUsagePreference.Default]


def set_memory_usage_preference(pref: str = "default") -> None:
    """Set what `get_memory_usage_preference` returns: "default", "strict" or "unrestricted"; it changes nothing."""
    names = {preference.name.lower(): preference for preference in MemoryUsagePreference}
    if pref not in names:
        raise ValueError(f"set_memory_usage_preference: pref must be one of {', '.join(names)}, got {pref!r}")
    _preference[0] = names[pref]


def get_memory_usage_preference() -> MemoryUsagePreference:
    """Return what was set."""
    return _preference[0]


def is_memory_usage_default() -> bool:
    """Tell whether "default" is set."""
    return _preference[0] is MemoryUsagePreference.Default


def is_memory_usage_strict() -> bool:
    """Tell whether "strict" is set."""
    return _preference[0] is MemoryUsagePreference.Strict


def is_memory_usage_unrestricted() -> bool:
    """Tell whether "unrestricted" is set."""
    return _preference[0] is MemoryUsagePreference.Unrestricted

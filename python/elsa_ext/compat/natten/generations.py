"""The generations of natten: what they take by position where they differ, and which modules they have."""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from . import context, functional, modules, old, support

VERSIONS = {"0.14.4": "0.14.4", "0.14": "0.14.6", "0.17": "0.17.4", "0.21": "0.21.6"}
"""What `install` takes, and the version that it is."""

_TENSORS = ("query", "key", "value", "kernel_size")
# After the kernel size, by position, of na1d and na2d, which 0.14 had not yet.
_FUNCTIONS = {
    "0.14.4": (),
    "0.14": (),
    "0.17": ("dilation", "is_causal", "rpb", "scale", "additional_keys", "additional_values", "xformers_kwargs"),
    "0.21": (
        *("stride", "dilation", "is_causal", "scale", "additional_keys", "additional_values", "attention_kwargs"),
        *("backend", "q_tile_shape", "kv_tile_shape", "backward_q_tile_shape", "backward_kv_tile_shape"),
        *("backward_kv_splits", "backward_use_pt_reduction", "run_persistent_kernel", "kernel_schedule"),
        *("torch_compile", "return_lse"),
    ),
}
_MODULES = {
    "0.14.4": ("dim", "kernel_size", "num_heads", "qkv_bias", "qk_scale", "attn_drop", "proj_drop", "dilation"),
    "0.14": (
        *("dim", "num_heads", "kernel_size", "dilation", "bias", "qkv_bias", "qk_scale", "attn_drop", "proj_drop"),
    ),
    "0.17": (
        *("dim", "num_heads", "kernel_size", "dilation", "is_causal", "rel_pos_bias", "qkv_bias", "qk_scale"),
        *("attn_drop", "proj_drop", "use_experimental_ops"),
    ),
    "0.21": (
        *("embed_dim", "num_heads", "kernel_size", "stride", "dilation", "is_causal", "qkv_bias", "qk_scale"),
        "proj_drop",
    ),
}


def namespaces(generation: str) -> dict[str, dict[str, Any]]:
    """Return the modules of a generation by name, the package first, and what is in each."""
    functions, settings = _functions(generation), _public(context)
    classes = {
        kind.__name__: _with_arguments(kind, generation)
        for kind in (modules.NeighborhoodAttention1D, modules.NeighborhoodAttention2D)
    } | {"NeighborhoodAttention3D": modules.NeighborhoodAttention3D}
    top = {"__version__": VERSIONS[generation], **classes, **settings}
    inside: dict[str, dict[str, Any]] = {"functional": functions, "context": settings}
    fused = {name: functions[name] for name in ("na1d", "na2d", "na3d")}
    if generation == "0.14.4":
        top["NeighborhoodAttention"] = classes["NeighborhoodAttention2D"]
    if generation == "0.17":
        inside |= {"experimental": fused, "types": support.TYPES}
        inside |= {"utils": support.CHECKS, "utils.checks": support.CHECKS, "utils.log": support.LOG}
    if generation == "0.21":
        top |= fused | {name: functions[name] for name in ("attention", "merge_attentions")}
        inside |= {"modules": classes, "types": support.TYPES}
        inside |= {"utils": {}, "utils.checks": support.CHECKS_021, "utils.log": support.LOG}
    else:
        inside["flops"] = support.FLOPS
        for axes in (1, 2, 3):
            name = f"NeighborhoodAttention{axes}D"
            files = (f"natten{axes}d", *([f"na{axes}d"] if generation == "0.17" else []))
            inside |= {file: {name: classes[name]} for file in files}
    return {"natten": top} | {f"natten.{name}": contents for name, contents in inside.items()}


def _functions(generation: str) -> dict[str, Any]:
    """Return what is in ``natten.functional``."""
    functions = _public(functional)
    names = (*_TENSORS, *_FUNCTIONS[generation])
    functions |= {
        name: _by_position(functions[name], names) for name in ("na1d", "na2d", "neighborhood_attention_generic")
    }
    if generation == "0.14.4":
        functions |= _public(old)
    if generation in ("0.14.4", "0.14"):
        functions |= _public(context)  # as in 0.15
        for axes in (1, 2):  # of which programs call ``apply`` alone
            for name in ("qkrpb", "av"):
                apply = functions[f"natten{axes}d{name}"]
                functions[f"NATTEN{axes}D{name.upper()}Function"] = SimpleNamespace(apply=apply)
    return functions


def _public(module: ModuleType) -> dict[str, Any]:
    """Return what a module of ours exports."""
    return {name: vars(module)[name] for name in module.__all__}


def _by_position(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Let ``function`` take ``names`` by position."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(**_named(function.__name__, names, args, options))

    return call


def _with_arguments(kind: type[Any], generation: str) -> type[Any]:
    """Return the module ``kind`` with the positions, defaults and attributes of a generation."""
    names = _MODULES[generation]
    before_017 = generation in ("0.14.4", "0.14")

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        given = _named(kind.__name__, names, args, options)
        if before_017:
            given = {"bias": "rel_pos_bias" not in given, **given}
        kind.__init__(self, **given)
        if before_017:
            self.use_numbers()

    contents = {"__init__": __init__, "__doc__": kind.__doc__, "__module__": "natten"}
    return type(kind.__name__, (kind,), contents)


def _named(callee: str, names: Sequence[str], args: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments by name."""
    if len(args) > len(names):
        raise TypeError(f"{callee} takes {len(names)} arguments by position, got {len(args)}")
    by_position = dict(zip(names, args, strict=False))
    if twice := by_position.keys() & options.keys():
        raise TypeError(f"{callee} got {', '.join(sorted(twice))} twice")
    return by_position | options

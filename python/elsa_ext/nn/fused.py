"""When the fused op may answer in the place of layers."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def computes_attention(attn: nn.Module, num_heads: int, kernel_size: int, dilation: int, groups: int) -> bool:
    """Tell whether `elsa_ext.hadamard_attention` computes what ``attn`` and a softmax do.

    So it is if ``attn`` is what `ELSA` makes, and calling it runs the forward of its layers and nothing else: their
    types are ``Sequential``, ``Conv2d``, ``GELU`` and ``Conv2d`` themselves, with the geometry of the op and plain
    parameters, without hooks, without a parametrization, and without a forward of the instance's own.
    """
    if _all_are_hooked() or not _runs_only(attn, nn.Sequential) or len(attn._modules) != 3:
        return False
    layers: Any = attn._modules.values()
    conv, act, proj = layers
    fused: bool = (
        _runs_only(conv, nn.Conv2d)
        and _runs_only(act, nn.GELU)
        and _runs_only(proj, nn.Conv2d)
        and act.approximate == "none"
        and conv.in_channels == conv.out_channels
        and _geometry(conv, kernel_size, kernel_size // 2 * dilation, dilation)
        and proj.out_channels == num_heads * kernel_size**2
        and proj.groups == groups
        and _geometry(proj, 1, 0, 1)
    )
    return fused


def _all_are_hooked() -> bool:
    """Tell whether somebody hooks all modules, but for PyTorch's own trackers.

    Those note where a call is. What ``FlopCounterMode`` counts by them must be what runs without it.
    """
    if not modules._has_any_global_hook():
        return False
    kinds = (
        modules._global_forward_pre_hooks,
        modules._global_forward_hooks,
        modules._global_backward_pre_hooks,
        modules._global_backward_hooks,
    )
    return any(not hook.__module__.startswith("torch.") for hooks in kinds for hook in hooks.values())


def _runs_only(layer: Any, kind: type[nn.Module]) -> bool:
    """Tell whether calling ``layer`` runs ``kind.forward`` on plain parameters and nothing else."""
    return (
        type(layer) is kind
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and not layer._backward_hooks
        and not layer._backward_pre_hooks
        and "forward" not in layer.__dict__
        and all(map(_is_plain, layer._parameters.values()))
    )


def _is_plain(parameter: Tensor | None) -> bool:
    """Tell whether a parameter is a tensor itself, not a wrapper with a meaning of its own (quantised, distributed)."""
    return type(parameter) is nn.Parameter or parameter is None or not is_traceable_wrapper_subclass(parameter)


def _geometry(conv: Any, kernel_size: int, padding: int, dilation: int) -> bool:
    """Tell whether a convolution has this geometry, steps of 1, and zeros around the map."""
    return (
        conv.kernel_size == (kernel_size, kernel_size)
        and conv.padding == (padding, padding)
        and conv.dilation == (dilation, dilation)
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
    )

"""When the fused op may answer in the place of layers."""

from typing import Any

from torch import nn

from .. import _torch_private as private


def computes_attention(attn: nn.Module, num_heads: int, kernel_size: int, dilation: int, groups: int) -> bool:
    """Tell whether `elsa_ext.hadamard_attention` computes what ``attn`` and a softmax do.

    So it is if ``attn`` is what `ELSA` makes, and calling it runs the forward of its layers and nothing else: their
    types are ``Sequential``, ``Conv2d``, ``GELU`` and ``Conv2d`` themselves, with the geometry of the op and plain
    parameters, without hooks, without a parametrization, and without a forward of the instance's own.
    """
    if _all_are_hooked() or not _runs_only(attn, nn.Sequential) or len(private.submodules(attn)) != 3:
        return False
    layers: Any = private.submodules(attn).values()
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
    return any(not hook.__module__.startswith("torch.") for hook in private.global_hooks())


def _runs_only(layer: Any, kind: type[nn.Module]) -> bool:
    """Tell whether calling ``layer`` runs ``kind.forward`` on plain parameters and nothing else."""
    return (
        type(layer) is kind
        and not private.has_hooks(layer)
        and "forward" not in layer.__dict__
        and all(map(private.is_plain, private.own_parameters(layer)))
    )


def _geometry(conv: Any, kernel_size: int, padding: int, dilation: int) -> bool:
    """Tell whether a convolution has this geometry, steps of 1, and zeros around the map."""
    return (
        conv.kernel_size == (kernel_size, kernel_size)
        and conv.padding == (padding, padding)
        and conv.dilation == (dilation, dilation)
        and conv.stride == (1, 1)
        and conv.padding_mode == "zeros"
    )

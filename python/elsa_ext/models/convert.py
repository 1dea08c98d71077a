"""ELSA in place of the local attention of timm's Swin and VOLO, or any local operator in that of Swin."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from timm.models import register_notrace_module
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.volo import Outlooker
from torch import nn

from ..nn import ELSABlock, LocalSpec
from ..nn.block import Block
from . import local, neighborhood
from ._replace import SwinBlock, choose, in_place_of, name, swins, volos

Model = TypeVar("Model", bound=nn.Module)

register_notrace_module(ELSABlock)


class ELSASwinBlock(SwinBlock, ELSABlock):
    """An `ELSABlock` that a stage of timm's Swin can hold."""


def convert(
    model: Model,
    stages: Sequence[int] | None = None,
    *,
    to: str | LocalSpec = "elsa",
    kernel_size: int | Sequence[int] | None = None,
    qk_scale: float | None = 1,
    group_width: int = 8,
    lam: int | None = None,
    gamma: float = 1,
) -> Model:
    """Replace the local attention of a timm Swin or VOLO, in place.

    By ELSA, the attention starts anew: normalisations, MLPs, rates of dropout and stochastic depth, device, dtype and
    mode stay, and so does all that is outside the blocks. The others are for a Swin. By neighborhood attention, all
    weights stay: a pixel attends to the window around it, with the border "shift" of NATTEN, in place of one of those
    that the map is cut into, by the same projections, and with the same bias for the same distance. By any other local
    operator, the projections stay as far as it has them, and for a softmax the biases; ``"qk+rb softmax window"`` is
    what the Swin has. On an error the model is as it was. An optimizer that was made before holds parameters that are
    gone: with neighborhood attention, the tables of relative positions.

    Args:
        model: A ``SwinTransformer`` or ``VOLO`` of timm, its ``features_only`` form, or any module that holds one.
        stages: Which stages, counted from 0. None means for ELSA those that ELSA-Swin and ELSA-VOLO have: of a Swin
            all but the last, of a VOLO all with outlook attention; for what else there is all.
        to: "elsa", "neighborhood", or a spec of `elsa_ext.nn.LocalAttention` such as ``"qk+rb softmax window"``. Its
            heads are those of the block, unless it says otherwise.
        kernel_size: Side of the neighbourhood. For ELSA odd; None means 7 in a Swin and 5 in a VOLO. Else one
            number or one for each axis; None means that of each block's window; for another one timm's
            ``resize_rel_pos_bias_table`` resizes the tables.
        qk_scale: See `elsa_ext.nn.ELSABlock`; for ELSA alone.
        group_width: See `elsa_ext.nn.ELSA`; for ELSA alone.
        lam: 1 to multiply the attention maps by a static matrix, 0 not to; None means 0 in a Swin and 1 in a VOLO; for
            ELSA alone.
        gamma: Weight of the static matrix that is added; 0 leaves it out; for ELSA alone.

    Returns:
        ``model``.

    Raises:
        TypeError: The model holds no Swin and no VOLO of timm.
        ValueError: It has no such stage, or the stage no local attention; or an argument is not what
            `elsa_ext.nn.ELSA`, `elsa_ext.nn.NeighborhoodAttention` or `elsa_ext.nn.LocalAttention` takes, or for ELSA
            alone.

    Example:
        >>> model = convert(timm.create_model("swin_tiny_patch4_window7_224", pretrained=True))
    """
    if isinstance(to, str) and " " in to:
        to = LocalSpec.parse(to)
    if to == "neighborhood" or isinstance(to, LocalSpec):
        elsas = {"qk_scale": (qk_scale, 1), "group_width": (group_width, 8), "lam": (lam, None), "gamma": (gamma, 1)}
        for argument, (given, default) in elsas.items():
            if given != default:
                raise ValueError(f'convert: {argument} is for to="elsa", got {given} with to="{to}"')
        new: list[tuple[Any, list[Any]]]
        if isinstance(to, LocalSpec):
            new = list(local.conversions(model, stages, kernel_size, to))
        else:
            new = list(neighborhood.conversions(model, stages, kernel_size))
    elif to == "elsa":
        options: dict[str, Any] = {"qk_scale": qk_scale, "group_width": group_width, "gamma": gamma}
        options |= {key: value for key, value in (("kernel_size", kernel_size), ("lam", lam)) if value is not None}
        new = list(_conversions(model, stages, options))
    else:
        expected = '"elsa", "neighborhood" or a spec such as "qk+rb softmax window"'
        raise ValueError(f"convert: to must be {expected}, got {to!r}")
    for blocks, replacements in new:
        for index, block in enumerate(replacements):
            blocks[index] = block
    return model


def _conversions(
    model: nn.Module, stages: Sequence[int] | None, options: dict[str, Any]
) -> Iterator[tuple[Any, list[Block]]]:
    """Return the blocks of every stage that becomes ELSA, and those that take their place."""
    swin_networks, volo_networks = list(swins(model)), list(volos(model))
    if not swin_networks and not volo_networks:
        raise TypeError(f"convert: model must hold a SwinTransformer or VOLO of timm, got {name(model)}")
    for network in swin_networks:
        chosen = range(len(network) - 1) if stages is None else stages
        for blocks in choose(network, chosen, SwinTransformerBlock):
            settings = {"kernel_size": 7, "lam": 0, **options}
            yield blocks, [_elsa_block(ELSASwinBlock, block, block.attn.qkv, settings) for block in blocks]
    for network in volo_networks:
        outlooking = [stage for stage, blocks in enumerate(network) if isinstance(blocks[0], Outlooker)]
        for blocks in choose(network, (outlooking or [0]) if stages is None else stages, Outlooker):
            settings = {"kernel_size": 5, "lam": 1, **options}
            yield blocks, [_elsa_block(ELSABlock, block, block.attn.v, settings) for block in blocks]


def _elsa_block(kind: type[ELSABlock], block: Any, in_proj: nn.Linear, options: dict[str, Any]) -> Any:
    """Make the block of ELSA that takes the place of another one."""
    elsa: Any = in_place_of(
        block,
        kind,
        num_heads=block.attn.num_heads,
        qkv_bias=in_proj.bias is not None,
        dim_v=block.attn.proj.in_features,
        **options,
    )
    # As timm initialises the linear layers of both families.
    nn.init.trunc_normal_(elsa.attn.post_proj.weight, std=0.02)
    nn.init.zeros_(elsa.attn.post_proj.bias)
    return elsa

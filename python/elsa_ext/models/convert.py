"""ELSA in place of the local attention of timm's Swin and VOLO."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from timm.models import register_notrace_module
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from timm.models.volo import VOLO, Outlooker
from torch import nn

from ..nn import ELSABlock

Model = TypeVar("Model", bound=nn.Module)

register_notrace_module(ELSABlock)


class ELSASwinBlock(ELSABlock):
    """An `ELSABlock` that a stage of timm's Swin can hold."""

    def set_input_size(
        self, feat_size: tuple[int, int], window_size: tuple[int, int], always_partition: bool | None = None
    ) -> None:
        """Do nothing: ELSA has no window and takes maps of any size."""


def convert(
    model: Model,
    stages: Sequence[int] | None = None,
    *,
    kernel_size: int | None = None,
    qk_scale: float | None = 1,
    group_width: int = 8,
    lam: int | None = None,
    gamma: float = 1,
) -> Model:
    """Replace the local attention of a timm Swin or VOLO by ELSA, in place.

    Only the attention starts anew: normalisations, MLPs, rates of dropout and stochastic depth, device, dtype and mode
    stay, and so does all that is outside the blocks. On an error the model is as it was. An optimizer that was made
    before holds parameters that are gone.

    Args:
        model: A ``SwinTransformer`` or ``VOLO`` of timm, its ``features_only`` form, or any module that holds one.
        stages: Which stages, counted from 0. None means those that ELSA-Swin and ELSA-VOLO have: of a Swin all but the
            last, of a VOLO all with outlook attention.
        kernel_size: Side of the neighbourhood, odd; None means 7 in a Swin and 5 in a VOLO.
        qk_scale: See `elsa_ext.nn.ELSABlock`.
        group_width: See `elsa_ext.nn.ELSA`.
        lam: 1 to multiply the attention maps by a static matrix, 0 not to; None means 0 in a Swin and 1 in a VOLO.
        gamma: Weight of the static matrix that is added; 0 leaves it out.

    Returns:
        ``model``.

    Raises:
        TypeError: The model holds no Swin and no VOLO of timm.
        ValueError: It has no such stage, or the stage no local attention; or an argument is not what
            `elsa_ext.nn.ELSA` takes.

    Example:
        >>> model = convert(timm.create_model("swin_tiny_patch4_window7_224", pretrained=True))
    """
    swins, volos = list(_swins(model)), list(_volos(model))
    if not swins and not volos:
        raise TypeError(f"convert: model must hold a SwinTransformer or VOLO of timm, got {_name(model)}")
    shared = {"qk_scale": qk_scale, "group_width": group_width, "gamma": gamma}
    shared |= {name: value for name, value in (("kernel_size", kernel_size), ("lam", lam)) if value is not None}
    new = []
    for network in swins:
        chosen = range(len(network) - 1) if stages is None else stages
        for blocks in _choose(network, chosen, SwinTransformerBlock):
            options = {"kernel_size": 7, "lam": 0, **shared}
            new.append((blocks, [_elsa_block(ELSASwinBlock, block, block.attn.qkv, options) for block in blocks]))
    for network in volos:
        outlooking = [stage for stage, blocks in enumerate(network) if isinstance(blocks[0], Outlooker)]
        for blocks in _choose(network, (outlooking or [0]) if stages is None else stages, Outlooker):
            options = {"kernel_size": 5, "lam": 1, **shared}
            new.append((blocks, [_elsa_block(ELSABlock, block, block.attn.v, options) for block in blocks]))
    for blocks, elsa_blocks in new:
        for index, block in enumerate(elsa_blocks):
            blocks[index] = block
    return model


def _swins(model: nn.Module) -> Iterator[list[Any]]:
    """Find every Swin's stages: the blocks of each. In ``features_only`` form the stages have another parent."""
    for parent in model.modules():
        stages = [child for child in parent.children() if isinstance(child, SwinTransformerStage)]
        if stages:
            yield [stage.blocks for stage in stages]


def _volos(model: nn.Module) -> Iterator[list[Any]]:
    """Find every VOLO's stages: the blocks of each."""
    for volo in model.modules():
        if isinstance(volo, VOLO):
            yield [volo.network[end] for end in volo.stage_ends if end < len(volo.network)]


def _choose(network: Sequence[Any], stages: Iterable[int], local: type[nn.Module]) -> Iterator[Any]:
    for stage in stages:
        if not 0 <= stage < len(network):
            raise ValueError(f"convert: stages must be 0 to {len(network) - 1}, got {stage}")
        if not all(isinstance(block, local) for block in network[stage]):
            raise ValueError(
                f"convert: stages must hold blocks of {local.__name__}, stage {stage} holds {_name(network[stage][0])}"
            )
        yield network[stage]


def _elsa_block(kind: type[ELSABlock], block: Any, in_proj: nn.Linear, options: dict[str, Any]) -> ELSABlock:
    """Make the block that takes the place of another one, whose normalisations and MLP it takes over."""
    attn = block.attn
    elsa = kind(
        attn.proj.out_features,
        num_heads=attn.num_heads,
        attn_drop=attn.attn_drop.p,
        drop_path=getattr(block.drop_path1, "drop_prob", 0.0),
        qkv_bias=in_proj.bias is not None,
        dim_v=attn.proj.in_features,
        proj_drop=attn.proj_drop.p,
        device=attn.proj.weight.device,
        dtype=attn.proj.weight.dtype,
        **options,
    ).train(block.training)
    elsa.norm1, elsa.norm2, elsa.mlp = block.norm1, block.norm2, block.mlp
    # As timm initialises the linear layers of both families.
    nn.init.trunc_normal_(elsa.attn.post_proj.weight, std=0.02)
    nn.init.zeros_(elsa.attn.post_proj.bias)
    return elsa


def _name(module: nn.Module) -> str:
    return type(module).__name__

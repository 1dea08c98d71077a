"""What the conversions of timm's models share: where the blocks are, and one that takes the place of another."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from timm.models.swin_transformer import SwinTransformerStage
from timm.models.volo import VOLO
from torch import nn

from ..nn.block import Block

Made = TypeVar("Made", bound=Block)


class SwinBlock(Block):
    """A block that a stage of timm's Swin can hold."""

    def set_input_size(
        self, feat_size: tuple[int, int], window_size: tuple[int, int], always_partition: bool | None = None
    ) -> None:
        """Do nothing: there is no window, and maps of any size are taken."""


def swins(model: nn.Module) -> Iterator[list[Any]]:
    """Find every Swin's stages: the blocks of each. In ``features_only`` form the stages have another parent."""
    for parent in model.modules():
        stages = [child for child in parent.children() if isinstance(child, SwinTransformerStage)]
        if stages:
            yield [stage.blocks for stage in stages]


def volos(model: nn.Module) -> Iterator[list[Any]]:
    """Find every VOLO's stages: the blocks of each."""
    for volo in model.modules():
        if isinstance(volo, VOLO):
            yield [volo.network[end] for end in volo.stage_ends if end < len(volo.network)]


def choose(network: Sequence[Any], stages: Iterable[int], local: type[nn.Module]) -> Iterator[Any]:
    """Return the blocks of ``stages``, all of the type ``local``."""
    for stage in stages:
        if not 0 <= stage < len(network):
            raise ValueError(f"convert: stages must be 0 to {len(network) - 1}, got {stage}")
        if not all(isinstance(block, local) for block in network[stage]):
            raise ValueError(
                f"convert: stages must hold blocks of {local.__name__}, stage {stage} holds {name(network[stage][0])}"
            )
        yield network[stage]


def in_place_of(block: Any, kind: Callable[..., Made], *sizes: Any, **options: Any) -> Made:
    """Make the block that takes the place of another one, whose normalisations and MLP it takes over."""
    attn = block.attn
    made = kind(
        attn.proj.out_features,
        *sizes,
        attn_drop=attn.attn_drop.p,
        drop_path=getattr(block.drop_path1, "drop_prob", 0.0),
        proj_drop=attn.proj_drop.p,
        device=attn.proj.weight.device,
        dtype=attn.proj.weight.dtype,
        **options,
    ).train(block.training)
    made.norm1, made.norm2, made.mlp = block.norm1, block.norm2, block.mlp
    return made


def name(module: nn.Module) -> str:
    """Return what errors call a module."""
    return type(module).__name__

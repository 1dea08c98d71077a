"""Any local operator in place of the window attention of timm's Swin."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.models import register_notrace_module
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ..nn import LocalAttention, LocalAttentionBlock, LocalSpec
from ._replace import SwinBlock, choose, in_place_of
from .neighborhood import relative_bias, swins_of

register_notrace_module(LocalAttentionBlock)


class LocalSwinBlock(SwinBlock, LocalAttentionBlock):
    """A `LocalAttentionBlock` that a stage of timm's Swin can hold."""


def conversions(
    model: nn.Module,
    stages: Sequence[int] | None,
    kernel_size: int | Sequence[int] | None,
    spec: LocalSpec,
    **options: Any,
) -> Iterator[tuple[Any, list[Any]]]:
    """Return the blocks of every stage that is to be converted, and those that take their place, with ``options``."""
    for network in swins_of(model, str(spec)):
        for blocks in choose(network, range(len(network)) if stages is None else stages, SwinTransformerBlock):
            yield blocks, [_local_block(block, kernel_size, spec, options) for block in blocks]


def of_windows(block: Any) -> LocalAttention:
    """Return the layer that computes what the window attention in a block of timm's Swin does, with its weights.

    Unless the windows are shifted and do not divide the map: timm shifts it before it fills them up with zeros.
    """
    attn: LocalAttention = _local_block(block, None, LocalSpec.parse("qk+rb softmax window"), {}).attn
    return attn


def _local_block(block: Any, kernel_size: int | Sequence[int] | None, spec: LocalSpec, options: dict[str, Any]) -> Any:
    """Make the block that takes the place of one with window attention, with those of its weights that it has."""
    attn, channels = block.attn, block.attn.proj.in_features
    window = tuple(attn.window_size)
    size = window if kernel_size is None else (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
    shift = tuple(block.shift_size)
    if size != window:
        shift = tuple(length // 2 if step else 0 for length, step in zip(size, shift, strict=True))
    heads = channels if spec.heads == "C" else int(spec.heads or attn.num_heads)
    if channels % heads:
        raise ValueError(f'convert: heads must divide the {channels} channels of every stage, got {heads} in "{spec}"')
    if heads == attn.num_heads:
        options = {"qk_scale": attn.scale, **options}
    made: Any = in_place_of(
        block,
        LocalSwinBlock,
        spec,
        heads=None if spec.heads else heads,
        head_dim=channels // heads,
        kernel_size=size,
        shift=shift if spec.region == "window" else 0,
        qkv_bias=attn.qkv.bias is not None,
        **options,
    )
    made.attn.proj = attn.proj
    found = weights_of_windows(made.attn, attn.qkv.weight, attn.qkv.bias, attn.relative_position_bias_table, window)
    made.attn.load_state_dict(found, strict=False)
    return made


def weights_of_windows(
    layer: LocalAttention, weight: Tensor, bias: Tensor | None, table: Tensor, window: tuple[int, int]
) -> dict[str, Tensor]:
    """Return what a layer has of the weights of window attention: projections, and for a softmax the relative bias.

    Of "hadamard" it is the projection of v alone, since its q and k have other channels.

    Args:
        layer: Whose weights these are to become.
        weight: The projection to q, k and v.
        bias: That of the projection.
        table: timm's table of relative positions.
        window: Its sides.
    """
    spec, size, found = LocalSpec.parse(layer.spec), tuple(layer.kernel_size), {}
    taken = [2] if spec.hadamard else [part for part, has in ((0, spec.has_query), (1, spec.has_key), (2, True)) if has]
    for name, theirs in (("weight", weight), ("bias", bias)):
        if theirs is not None:
            parts = theirs.detach().chunk(3)
            rows = torch.cat([parts[part] for part in taken])
            others = getattr(layer.qkv, name).detach()[: -len(rows)]
            found[f"qkv.{name}"] = torch.cat([others, rows.to(others)])
    if "rb" in spec.terms and spec.norm == "softmax" and layer.heads == table.shape[1]:
        relative = relative_bias(table.detach(), window, size)
        if not spec.moves:  # the offsets of a neighbourhood, which are half as far
            for axis, length in enumerate(size):
                relative = relative.narrow(axis + 1, length - 1 - length // 2, length)
        found["r_bias"] = relative
    return found

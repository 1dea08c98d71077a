"""Neighborhood attention in place of the window attention of timm's Swin."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models import register_notrace_module
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ..nn import NeighborhoodAttentionBlock
from ..nn.checks import per_axis
from ._replace import SwinBlock, choose, in_place_of, name, swins

register_notrace_module(NeighborhoodAttentionBlock)


class NeighborhoodSwinBlock(SwinBlock, NeighborhoodAttentionBlock):
    """A `NeighborhoodAttentionBlock` that a stage of timm's Swin can hold."""


def conversions(
    model: nn.Module, stages: Sequence[int] | None, kernel_size: int | Sequence[int] | None
) -> Iterator[tuple[Any, list[Any]]]:
    """Return the blocks of every stage that is to be converted, and those that take their place."""
    for network in swins_of(model, "neighborhood"):
        for blocks in choose(network, range(len(network)) if stages is None else stages, SwinTransformerBlock):
            yield blocks, [_neighborhood_block(block, kernel_size) for block in blocks]


def swins_of(model: nn.Module, to: str) -> list[list[Any]]:
    """Find the stages of every Swin, of which there must be one.

    Raises:
        TypeError: There is none.
    """
    networks = list(swins(model))
    if not networks:
        refused = [module for module in model.modules() if name(module) in _REASONS]
        reason = f"; {_REASONS[name(refused[0])]}" if refused else ""
        got = name(refused[0] if refused else model)
        raise TypeError(f'convert: to="{to}" takes a model that holds a SwinTransformer of timm, got {got}{reason}')
    return networks


_REASONS = {
    "SwinTransformerV2": "its attention is a cosine, under a bias that a network makes",
    "SwinTransformerV2Cr": "its attention is a cosine, under a bias that a network makes",
    "VOLO": "its outlook attention has no query and no key",
}


def _neighborhood_block(block: Any, kernel_size: int | Sequence[int] | None) -> Any:
    """Make the block that takes the place of one with window attention, with all of its weights."""
    attn = block.attn
    window = tuple(attn.window_size)
    size = window if kernel_size is None else tuple(per_axis("convert", "kernel_size", kernel_size, 2))
    made: Any = in_place_of(
        block,
        NeighborhoodSwinBlock,
        attn.num_heads,
        size,
        head_dim=attn.proj.in_features // attn.num_heads,
        qk_scale=attn.scale,
        rel_pos_bias=True,
    )
    made.attn.qkv, made.attn.proj = attn.qkv, attn.proj
    with torch.no_grad():
        made.attn.rpb.copy_(relative_bias(attn.relative_position_bias_table, window, size))
    made.attn.rpb.requires_grad_(attn.relative_position_bias_table.requires_grad)
    return made


def relative_bias(table: Tensor, window: Any, size: Any) -> Tensor:
    """Return timm's table, (offsets of both axes, heads), as (heads, offsets of rows, offsets of columns).

    timm counts offsets from the key to the query, this package from the query to the key.
    """
    rows, columns = (2 * length - 1 for length in size)
    if size != window:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's resampling warns of what it does itself
            table = resize_rel_pos_bias_table(table, size, (rows * columns, table.shape[1]), window)
    return table.unflatten(0, (rows, columns)).flip(0, 1).permute(2, 0, 1)

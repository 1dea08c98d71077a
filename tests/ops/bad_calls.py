"""Malformed calls of both ops: what is wrong with each, and the words that its message must have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ops.cases import Case, GhostHead, HadamardAttention
from torch import Tensor

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class BadCall:
    """A valid ``case`` with some arguments replaced; ``words`` are the argument and the numbers its message names."""

    name: str
    case: Case
    changes: Mapping[str, Change]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.case.op}-{self.name}"

    def apply(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The valid ``arguments`` with this call's changes."""
        return {name: self.changes[name](a) if name in self.changes else a for name, a in arguments.items()}


def _be(new: Any) -> Change:
    return lambda _: new


def _to(target: torch.dtype | str) -> Change:
    return lambda tensor: tensor.to(target)


def _shape(*shape: int) -> Change:
    return lambda tensor: tensor.new_zeros(shape)


def _drop(dim: int) -> Change:
    return lambda tensor: tensor.narrow(dim, 0, tensor.shape[dim] - 1)


def _squeeze(tensor: Tensor) -> Tensor:
    return tensor[0]


def _unsqueeze(tensor: Tensor) -> Tensor:
    return tensor[None]


HALVES = (torch.float16, torch.bfloat16)

_ghost = GhostHead(channels=6, heads=2, height=5, width=7)
_sample = GhostHead(channels=6, heads=2, height=5, width=7, mul="sample", add="sample")


def _ghost_call(name: str, words: str, case: GhostHead = _ghost, **changes: Change) -> BadCall:
    return BadCall(name, case, changes, tuple(words.split()))


GHOST_HEAD = [
    _ghost_call("value_3d", "value 3", value=_squeeze),
    _ghost_call("value_5d", "value 5", value=_unsqueeze),
    _ghost_call("value_scalar", "value 0", value=_shape()),
    _ghost_call("value_no_rows", "value 0", value=_shape(2, 6, 0, 7), attn=_shape(2, 18, 0, 7)),
    _ghost_call("value_no_columns", "value 0", value=_shape(2, 6, 5, 0), attn=_shape(2, 18, 5, 0)),
    _ghost_call("attn_3d", "attn 3", attn=_squeeze),
    _ghost_call("attn_5d", "attn 5", attn=_unsqueeze),
    _ghost_call("attn_channels", "attn 17 9", attn=_drop(1)),
    _ghost_call("attn_no_channels", "attn 0", attn=lambda t: t[:, :0]),
    _ghost_call("heads_do_not_divide", "attn 6 4", attn=_shape(2, 36, 5, 7)),
    _ghost_call("more_heads_than_channels", "attn 6 12", attn=_shape(2, 108, 5, 7)),
    _ghost_call("attn_batch", "attn 1 2", attn=_drop(0)),
    _ghost_call("attn_broadcast_batch", "attn 0 2", attn=lambda t: t[:0]),
    _ghost_call("attn_height", "attn 4 5", attn=_drop(2)),
    _ghost_call("attn_width", "attn 6 7", attn=_drop(3)),
    _ghost_call("attn_of_stride_1", "attn 5 2", stride=_be(2)),
    _ghost_call("attn_rounded_up", "attn 3 2", attn=_shape(2, 18, 3, 4), stride=_be(2)),
    _ghost_call("kernel_size_even", "kernel_size 4", kernel_size=_be(4)),
    _ghost_call("kernel_size_zero", "kernel_size 0", kernel_size=_be(0)),
    _ghost_call("kernel_size_negative", "kernel_size -3", kernel_size=_be(-3)),
    _ghost_call("kernel_size_overflows", "kernel_size 9223372036854775807", kernel_size=_be(2**63 - 1)),
    _ghost_call("kernel_size_of_another", "attn 18 25", kernel_size=_be(5)),
    _ghost_call("dilation_zero", "dilation 0", dilation=_be(0)),
    _ghost_call("dilation_negative", "dilation -2", dilation=_be(-2)),
    _ghost_call("stride_zero", "stride 0", stride=_be(0)),
    _ghost_call("stride_negative", "stride -1", stride=_be(-1)),
    _ghost_call("value_int", "value int64", value=_to(torch.int64)),
    _ghost_call("value_bool", "value bool", value=_to(torch.bool)),
    _ghost_call("value_complex", "value complex64", value=_to(torch.complex64)),
    _ghost_call("attn_int", "attn int32", attn=_to(torch.int32)),
    _ghost_call("attn_double", "attn float64", attn=_to(torch.float64)),
    _ghost_call("attn_of_the_other_half", "attn bfloat16", value=_to(HALVES[0]), attn=_to(HALVES[1])),
    _ghost_call("mul_double", "ghost_mul float64", ghost_mul=_to(torch.float64)),
    _ghost_call("mul_half_beside_float", "ghost_mul float16", ghost_mul=_to(torch.float16)),
    _ghost_call("add_int", "ghost_add int64", ghost_add=_to(torch.int64)),
    _ghost_call(
        "add_of_the_other_half",
        "ghost_add float16",
        value=_to(HALVES[1]),
        attn=_to(HALVES[1]),
        ghost_mul=_to(HALVES[1]),
        ghost_add=_to(HALVES[0]),
    ),
    _ghost_call("mul_channels", "ghost_mul 5 6", ghost_mul=_drop(0)),
    _ghost_call("mul_per_head", "ghost_mul 2 6", ghost_mul=_shape(2, 3, 3)),
    _ghost_call("mul_kernel", "ghost_mul 5 3", ghost_mul=_shape(6, 5, 5)),
    _ghost_call("mul_2d", "ghost_mul", ghost_mul=_shape(6, 9)),
    _ghost_call("mul_transposed", "ghost_mul", ghost_mul=_shape(3, 3, 6)),
    _ghost_call("mul_batch", "ghost_mul 3 2", case=_sample, ghost_mul=_shape(3, 6, 3, 3)),
    _ghost_call("mul_5d", "ghost_mul", case=_sample, ghost_mul=_unsqueeze),
    _ghost_call("mul_empty", "ghost_mul 0", ghost_mul=_shape(0)),
    _ghost_call("add_channels", "ghost_add 5 6", ghost_add=_drop(0)),
    _ghost_call("add_kernel", "ghost_add 2 3", ghost_add=_drop(2)),
    _ghost_call("add_batch", "ghost_add 1 2", case=_sample, ghost_add=_drop(0)),
    _ghost_call("value_on_meta", "meta cpu", value=_to("meta")),
    _ghost_call("attn_on_meta", "attn meta cpu", attn=_to("meta")),
    _ghost_call("mul_on_meta", "ghost_mul meta cpu", ghost_mul=_to("meta")),
    _ghost_call("add_on_meta", "ghost_add meta cpu", ghost_add=_to("meta")),
]


def _ghost_backward(name: str, words: str, **changes: Change) -> BadCall:
    return BadCall(name, _ghost, changes, tuple(words.split()))


GHOST_HEAD_BACKWARD = [
    _ghost_backward("grad_3d", "grad", grad=_squeeze),
    _ghost_backward("grad_batch", "grad 1 2", grad=_drop(0)),
    _ghost_backward("grad_channels", "grad 5 6", grad=_drop(1)),
    _ghost_backward("grad_height", "grad 4 5", grad=_drop(2)),
    _ghost_backward("grad_width", "grad 6 7", grad=_drop(3)),
    _ghost_backward("grad_double", "grad float64", grad=_to(torch.float64)),
    _ghost_backward("grad_on_meta", "grad meta cpu", grad=_to("meta")),
]

_hadamard = HadamardAttention(channels=6, groups=2, heads=2, height=5, width=7)


def _hadamard_call(name: str, words: str, **changes: Change) -> BadCall:
    return BadCall(name, _hadamard, changes, tuple(words.split()))


HADAMARD_ATTENTION = [
    _hadamard_call("query_3d", "query 3", query=_squeeze),
    _hadamard_call("query_5d", "query 5", query=_unsqueeze),
    _hadamard_call("query_no_rows", "query 0", query=_shape(2, 6, 0, 7), key=_shape(2, 6, 0, 7)),
    _hadamard_call("query_no_channels", "query 0", query=_shape(2, 0, 5, 7), key=_shape(2, 0, 5, 7)),
    _hadamard_call("query_int", "query int64", query=_to(torch.int64)),
    _hadamard_call("query_complex", "query complex64", query=_to(torch.complex64)),
    _hadamard_call("key_3d", "key", key=_squeeze),
    _hadamard_call("key_batch", "key 1 2", key=_drop(0)),
    _hadamard_call("key_channels", "key 5 6", key=_drop(1)),
    _hadamard_call("key_height", "key 4 5", key=_drop(2)),
    _hadamard_call("key_width", "key 6 7", key=_drop(3)),
    _hadamard_call("key_broadcast", "key 1 7", key=lambda t: t[..., :1]),
    _hadamard_call("key_double", "key float64", key=_to(torch.float64)),
    _hadamard_call("key_on_meta", "key meta cpu", key=_to("meta")),
    _hadamard_call("conv_weight_3d", "conv_weight 3", conv_weight=_squeeze),
    _hadamard_call("conv_weight_channels", "conv_weight 5 6", conv_weight=_drop(0)),
    _hadamard_call("conv_weight_groups", "conv_weight 4 6", conv_weight=_shape(6, 4, 3, 3)),
    _hadamard_call("conv_weight_no_inputs", "conv_weight 0", conv_weight=_shape(6, 0, 3, 3)),
    _hadamard_call("conv_weight_too_many_inputs", "conv_weight 12 6", conv_weight=_shape(6, 12, 3, 3)),
    _hadamard_call("conv_weight_even", "conv_weight 4", conv_weight=_shape(6, 3, 4, 4)),
    _hadamard_call("conv_weight_not_square", "conv_weight 3 5", conv_weight=_shape(6, 3, 3, 5)),
    _hadamard_call("conv_weight_no_kernel", "conv_weight 0", conv_weight=_shape(6, 3, 0, 0)),
    _hadamard_call("conv_weight_double", "conv_weight float64", conv_weight=_to(torch.float64)),
    _hadamard_call("conv_weight_on_meta", "conv_weight meta cpu", conv_weight=_to("meta")),
    _hadamard_call("conv_bias_size", "conv_bias 5 6", conv_bias=_drop(0)),
    _hadamard_call("conv_bias_2d", "conv_bias", conv_bias=_shape(6, 1)),
    _hadamard_call("conv_bias_half", "conv_bias float16", conv_bias=_to(torch.float16)),
    _hadamard_call("conv_bias_on_meta", "conv_bias meta cpu", conv_bias=_to("meta")),
    _hadamard_call("proj_weight_rows", "proj_weight 17 18", proj_weight=_drop(0)),
    _hadamard_call("proj_weight_of_another_kernel", "proj_weight 50 18", proj_weight=_shape(50, 6, 1, 1)),
    _hadamard_call("proj_weight_inputs", "proj_weight 5 6", proj_weight=_drop(1)),
    _hadamard_call("proj_weight_inputs_of_groups", "proj_weight 6 3", proj_groups=_be(2)),
    _hadamard_call("proj_weight_1d", "proj_weight 108", proj_weight=_shape(108)),
    _hadamard_call("proj_weight_3d", "proj_weight 18 6 1", proj_weight=_shape(18, 6, 1)),
    _hadamard_call("proj_weight_3x3", "proj_weight 3", proj_weight=_shape(18, 6, 3, 3)),
    _hadamard_call("proj_weight_double", "proj_weight float64", proj_weight=_to(torch.float64)),
    _hadamard_call("proj_weight_on_meta", "proj_weight meta cpu", proj_weight=_to("meta")),
    _hadamard_call("proj_bias_size", "proj_bias 6 18", proj_bias=_shape(6)),
    _hadamard_call("proj_bias_2d", "proj_bias", proj_bias=_unsqueeze),
    _hadamard_call("proj_bias_int", "proj_bias int64", proj_bias=_to(torch.int64)),
    _hadamard_call("proj_bias_on_meta", "proj_bias meta cpu", proj_bias=_to("meta")),
    _hadamard_call("heads_zero", "heads 0", heads=_be(0)),
    _hadamard_call("heads_negative", "heads -2", heads=_be(-2)),
    _hadamard_call("heads_of_another", "proj_weight 18 27", heads=_be(3)),
    _hadamard_call("heads_overflow", "heads 4611686018427387906", heads=_be(2**62 + 2)),
    _hadamard_call(
        "heads_times_taps_overflow",
        "heads 2147483647 268435457",
        heads=_be(2**31 - 1),
        conv_weight=lambda t: t.new_zeros(1).expand(6, 3, 2**28 + 1, 2**28 + 1),
    ),
    _hadamard_call("dilation_zero", "dilation 0", dilation=_be(0)),
    _hadamard_call("stride_zero", "stride 0", stride=_be(0)),
    _hadamard_call("stride_negative", "stride -1", stride=_be(-1)),
    _hadamard_call("proj_groups_zero", "proj_groups 0", proj_groups=_be(0)),
    _hadamard_call("proj_groups_negative", "proj_groups -1", proj_groups=_be(-1)),
    _hadamard_call("proj_groups_do_not_divide_channels", "proj_groups 9 6", proj_groups=_be(9)),
    _hadamard_call(
        "proj_groups_do_not_divide_rows",
        "proj_groups 6 9",
        heads=_be(1),
        proj_groups=_be(6),
        proj_weight=_shape(9, 1, 1, 1),
        proj_bias=_shape(9),
    ),
]


def _hadamard_backward(name: str, words: str, **changes: Change) -> BadCall:
    return BadCall(name, _hadamard, changes, tuple(words.split()))


HADAMARD_ATTENTION_BACKWARD = [
    _hadamard_backward("grad_3d", "grad", grad=_squeeze),
    _hadamard_backward("grad_channels", "grad 17 18", grad=_drop(1)),
    _hadamard_backward("grad_height", "grad 4 5", grad=_drop(2)),
    _hadamard_backward("grad_double", "grad float64", grad=_to(torch.float64)),
    _hadamard_backward("grad_on_meta", "grad meta cpu", grad=_to("meta")),
    _hadamard_backward("attn_3d", "attn", attn=_squeeze),
    _hadamard_backward("attn_batch", "attn 1 2", attn=_drop(0)),
    _hadamard_backward("attn_width", "attn 6 7", attn=_drop(3)),
    _hadamard_backward("attn_half", "attn float16", attn=_to(torch.float16)),
    _hadamard_backward("attn_on_meta", "attn meta cpu", attn=_to("meta")),
]

FORWARD = [*GHOST_HEAD, *HADAMARD_ATTENTION]
BACKWARD = [*FORWARD, *GHOST_HEAD_BACKWARD, *HADAMARD_ATTENTION_BACKWARD]

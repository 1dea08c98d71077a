"""``nn.NeighborhoodAttention``: its formula, every option, small maps, windows of timm, and what it is made into."""

import inspect
from typing import Any

import elsa_ext
import pytest
import torch
from elsa_ext.nn import ELSABlock, NeighborhoodAttention, NeighborhoodAttentionBlock
from elsa_ext.nn.block import Block
from golden import assert_agrees
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

DOUBLE = {"dtype": torch.float64}


def by_the_op(layer: NeighborhoodAttention, x: Tensor, **options: Any) -> Tensor:
    """The same from its parts: the projections, and the op on contiguous tensors; ``x`` is a map."""
    query, key, value = layer.qkv(x).permute(0, 3, 1, 2).contiguous().chunk(3, 1)
    bias = None if layer.rpb is None else layer.rpb.reshape(layer.heads, -1, layer.rpb.shape[-1])
    given = {"kernel_size": layer.kernel_size, "scale": layer.scale, "border": layer.border, **options}
    out = elsa_ext.neighborhood_attention(query, key, value, bias, heads=layer.heads, **given)
    return layer.proj(out.permute(0, 2, 3, 1))


OPTIONS = {
    "defaults": {},
    "bias": {"rel_pos_bias": True},
    "even": {"kernel_size": 4, "rel_pos_bias": True},
    "rectangle": {"kernel_size": (3, 5), "dilation": (2, 1), "rel_pos_bias": True},
    "stride_causal": {"kernel_size": 5, "window_stride": (2, 5), "causal": (True, False)},
    "zeros": {"border": "zeros", "rel_pos_bias": True, "qkv_bias": False},
    "mask": {"border": "mask", "qk_scale": 0.3},
    "circular": {"border": "circular", "kernel_size": 7, "rel_pos_bias": True},
    "head_dim": {"head_dim": 5, "heads": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_formula(options: dict[str, Any], unemulated: Any) -> None:
    given = {"dim": 12, "heads": 3, "kernel_size": 3, **options}
    layer = NeighborhoodAttention(**given, **DOUBLE).to(unemulated.device)
    assert layer.scale == given.get("qk_scale", given.get("head_dim", 4) ** -0.5)
    x = torch.randn(2, 9, 8, 12, device=unemulated.device, **DOUBLE)
    names = ("dilation", "window_stride", "causal")
    expected = by_the_op(layer, x, **{name: options[name] for name in names if name in options})
    assert_agrees("out", layer(x), expected.detach())


def test_sequences_are_maps_of_one_row() -> None:
    layer = NeighborhoodAttention(12, 3, (5,), dilation=2, window_stride=(2,), causal=True, rel_pos_bias=True, **DOUBLE)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "rpb": (3, 9),
        "qkv.weight": (36, 12),
        "qkv.bias": (36,),
        "proj.weight": (12, 12),
        "proj.bias": (12,),
    }
    x = torch.randn(2, 17, 12, **DOUBLE)
    row = {"kernel_size": (1, 5), "dilation": (1, 2), "window_stride": (1, 2), "causal": (False, True)}
    assert_agrees("out", layer(x), by_the_op(layer, x.unsqueeze(1), **row).squeeze(1).detach())


def test_query_key_and_value_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    layer = NeighborhoodAttention(12, 3, 3)
    layer.qkv.register_forward_hook(lambda module, inputs, out: seen.append(out))
    op = torch.ops.elsa.neighborhood_attention.default

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is op:
                seen.extend(args[:3])
            return func(*args, **(kwargs or {}))

    with Spy(), torch.no_grad():
        layer(torch.randn(2, 5, 6, 12))
    made, *given = seen
    assert [tensor.data_ptr() - made.data_ptr() for tensor in given] == [0, 48, 96]
    assert {tensor.stride() for tensor in given} == {(5 * 6 * 36, 1, 6 * 36, 36)}


def attention_to_all(layer: NeighborhoodAttention, x: Tensor) -> Tensor:
    """Full attention, of every pixel to all that are a multiple of the dilation apart, under the bias of ``layer``."""
    query, key, value = layer.qkv(x).unflatten(-1, (3, layer.heads, -1)).movedim(-2, 1).unbind(-2)
    logits = torch.einsum("bhyxc,bhijc->bhyixj", query, key) * layer.scale
    bias, reaches = layer.rpb, torch.ones((), dtype=torch.bool)
    for axis, (size, step) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        at = torch.arange(x.shape[1 + axis])
        offset = at[None, :] - at[:, None]  # from the query, first, to the key
        bias = bias.index_select(1 + 2 * axis, (offset // step + size - 1).flatten()).unflatten(
            1 + 2 * axis, offset.shape
        )
        reaches = reaches[..., None, None] & (offset % step == 0)
    logits = (logits + bias).masked_fill(~reaches, -torch.inf).transpose(3, 4)
    attn = logits.flatten(4).softmax(-1).view_as(logits)
    return layer.proj(torch.einsum("bhyxij,bhijc->byxhc", attn, value).flatten(3))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((7, 7), {}),
        ((3, 6), {}),
        ((1, 1), {}),
        ((5, 1), {"window_stride": 7}),
        ((2, 3), {"kernel_size": (4, 3)}),
        ((6, 4), {"dilation": (2, 1)}),
        ((2, 5), {"dilation": (2, 1)}),
        ((1, 3), {"dilation": 4}),
    ],
    ids=str,
)
def test_small_maps_are_attended_to_as_far_as_they_go(size: tuple[int, int], options: dict[str, Any]) -> None:
    layer = NeighborhoodAttention(8, 2, **{"kernel_size": 7, "rel_pos_bias": True, **options}, **DOUBLE)
    x = torch.randn(2, *size, 8, **DOUBLE)
    assert_agrees("out", layer(x), attention_to_all(layer, x).detach())


def test_a_map_that_is_small_along_one_axis() -> None:
    layer = NeighborhoodAttention(8, 2, 7, rel_pos_bias=True, **DOUBLE)
    x = torch.randn(2, 4, 15, 8, **DOUBLE)
    lower = NeighborhoodAttention(8, 2, (4, 7), rel_pos_bias=True, **DOUBLE)
    lower.load_state_dict({**layer.state_dict(), "rpb": layer.rpb[:, 3:-3]})
    assert_agrees("out", layer(x), lower(x).detach())
    layer(x).sum().backward()
    assert layer.rpb.grad[:, 3:-3].any() and not layer.rpb.grad[:, :3].any() and not layer.rpb.grad[:, -3:].any()


@pytest.mark.parametrize(
    ("window", "dtype", "tolerance"), [((7, 7), torch.float32, 1e-6), ((4, 3), torch.float64, 1e-13)]
)
def test_windows_of_timm(window: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    """As many outputs as taps share a window: the windows of an unshifted Swin."""
    theirs = WindowAttention(24, 3, window_size=window, dtype=dtype)
    nn.init.normal_(theirs.relative_position_bias_table)
    ours = NeighborhoodAttention(24, 3, window, window_stride=window, rel_pos_bias=True, dtype=dtype)
    table = theirs.relative_position_bias_table.detach()
    rpb = table.view(2 * window[0] - 1, 2 * window[1] - 1, 3).flip(0, 1).permute(2, 0, 1)
    ours.load_state_dict({**{name: p for name, p in theirs.state_dict().items() if "relative" not in name}, "rpb": rpb})
    x = torch.randn(2, 3 * window[0], 2 * window[1], 24, dtype=dtype)
    height, width = x.shape[1:3]
    windows = theirs(window_partition(x, window).flatten(1, 2)).unflatten(1, window)
    expected = window_reverse(windows, window, height, width)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=tolerance)


def test_dropout_of_the_attention() -> None:
    """It zeroes taps in training: what is left is scaled; the mean over many draws is what there is without it."""
    layer = NeighborhoodAttention(8, 2, 3, attn_drop=0.5, rel_pos_bias=True, **DOUBLE)
    x = torch.randn(1, 5, 6, 8, **DOUBLE)
    expected = layer.eval()(x)
    plain = NeighborhoodAttention(8, 2, 3, rel_pos_bias=True, **DOUBLE)
    plain.load_state_dict(layer.state_dict())
    assert_agrees("in eval mode", expected, plain(x).detach())
    draws = layer.train()(x.expand(400, -1, -1, -1)).detach()
    assert draws.std(0).min() > 0
    torch.testing.assert_close(draws.mean(0), expected[0].detach(), rtol=0, atol=0.3 * float(draws.std(0).max()))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_unfused_is_fused(options: dict[str, Any]) -> None:
    """A dropout so rare that no tap is lost."""
    given = {"dim": 12, "heads": 3, "kernel_size": 3, **options, **DOUBLE}
    fused, unfused = NeighborhoodAttention(**given), NeighborhoodAttention(**given, attn_drop=1e-15)
    unfused.load_state_dict(fused.state_dict())
    x = torch.randn(2, 9, 8, 12, **DOUBLE)
    grads = []
    for layer in (fused, unfused):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        grads.append((out, *torch.autograd.grad(out.square().sum(), [leaf, *layer.parameters()])))
    for want, got in zip(*grads, strict=True):
        assert_agrees("out and gradients", got, want.detach())


def test_dropout_of_the_output() -> None:
    layer = NeighborhoodAttention(8, 2, 3, proj_drop=1.0)
    x = torch.randn(1, 5, 6, 8)
    assert not layer(x).any() and layer.eval()(x).any()


def test_initial_bias() -> None:
    layer = NeighborhoodAttention(64, 8, 7, rel_pos_bias=True)
    assert 0.017 < float(layer.rpb.detach().std()) < 0.023


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "NeighborhoodAttention: dim must be a positive integer, got 0"),
        ({"heads": 5}, "NeighborhoodAttention: heads must divide dim = 12, got 5"),
        ({"head_dim": 0}, "NeighborhoodAttention: head_dim must be a positive integer, got 0"),
        ({"kernel_size": (3, 0)}, "NeighborhoodAttention: kernel_size must be a positive integer, got 0"),
        ({"kernel_size": (3, 3, 3)}, "NeighborhoodAttention: kernel_size must be one for all axes or 2, got (3, 3, 3)"),
        ({"dilation": 1.5}, "NeighborhoodAttention: dilation must be a positive integer, got 1.5"),
        (
            {"kernel_size": (3,), "dilation": (1, 1)},
            "NeighborhoodAttention: dilation must be one for all axes or 1, got (1, 1)",
        ),
        (
            {"window_stride": (1, 4)},
            "NeighborhoodAttention: window_stride must be from 1 to kernel_size = [3, 3], got [1, 4]",
        ),
        (
            {"border": "reflect"},
            """NeighborhoodAttention: border must be "zeros", "mask", "circular" or "shift", got 'reflect'""",
        ),
        (
            {"border": "mask", "causal": True},
            'NeighborhoodAttention: window_stride and causal need border "shift", got "mask"',
        ),
        (
            {"border": "zeros", "window_stride": 2},
            'NeighborhoodAttention: window_stride and causal need border "shift", got "zeros"',
        ),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        NeighborhoodAttention(**{"dim": 12, "heads": 3, "kernel_size": 3, **changed})
    assert str(caught.value) == message


def test_bad_inputs() -> None:
    with pytest.raises(
        ValueError, match=r"NeighborhoodAttention: the input must have shape \(B, H, W, 12\), got \[2, 9, 12\]"
    ):
        NeighborhoodAttention(12, 3, 3)(torch.zeros(2, 9, 12))
    with pytest.raises(
        ValueError, match=r"NeighborhoodAttention: the input must have shape \(B, L, 12\), got \[2, 9, 8\]"
    ):
        NeighborhoodAttention(12, 3, (3,))(torch.zeros(2, 9, 8))
    with pytest.raises(RuntimeError, match="neighborhood_attention: query must have at least one row and one column"):
        NeighborhoodAttention(12, 3, 3)(torch.zeros(2, 0, 8, 12))


def test_the_block_is_that_of_elsa_with_another_attention() -> None:
    block = NeighborhoodAttentionBlock(
        12, 3, 5, mlp_ratio=2, drop_path=1.0, rel_pos_bias=True, proj_drop=0.5, causal=True
    )
    elsa = {name for name, _ in ELSABlock(12, 5).named_parameters() if not name.startswith("attn.")}
    assert {name for name, _ in block.named_parameters() if not name.startswith("attn.")} == elsa
    assert block.attn.rpb.shape == (3, 9, 9) and block.attn.causal == [True, True] and block.attn.proj_drop.p == 0.5
    x = torch.randn(2, 6, 7, 12)
    assert torch.equal(block(x), x)
    half = x + block.eval().attn(block.norm1(x))
    torch.testing.assert_close(block(x), half + block.mlp(block.norm2(half)))
    assert block.mlp.fc1.out_features == 24


def test_a_block_of_sequences() -> None:
    assert NeighborhoodAttentionBlock(12, 3, (5,), causal=True)(torch.randn(2, 9, 12)).shape == (2, 9, 12)


def test_arguments_that_blocks_share() -> None:
    shared = ("mlp_ratio", "drop", "drop_path", "act_layer", "norm_layer", "device", "dtype")
    for kind in (ELSABlock, NeighborhoodAttentionBlock):
        assert issubclass(kind, Block) and set(shared) <= inspect.signature(kind).parameters.keys()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("sequences", [False, True])
def test_scripted_traced_and_exported(sequences: bool) -> None:
    layer = NeighborhoodAttention(12, 3, (5,) if sequences else 5, dilation=2, rel_pos_bias=True, attn_drop=0.1).eval()
    x = torch.randn(2, 13, 12) if sequences else torch.randn(2, 13, 11, 12)
    small = x[:, :6]  # fewer taps
    expected, of_small = layer(x), layer(small)
    exported = torch.export.export(layer, (x,)).module()
    for made in (torch.jit.script(layer), torch.fx.symbolic_trace(layer)):
        torch.testing.assert_close(made(x), expected, rtol=0, atol=0)
        torch.testing.assert_close(made(small), of_small, rtol=0, atol=0)
    torch.testing.assert_close(exported(x), expected, rtol=0, atol=0)

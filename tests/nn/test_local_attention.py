"""``nn.LocalAttention``: its known members, each against another implementation of it, and all terms together."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsa_ext.compat.natten import functional as natten
from elsa_ext.nn import ELSA, LocalAttention, LocalSpec
from golden import assert_agrees
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

DOUBLE = {"dtype": torch.float64}


def layer(spec: str, heads: int | None = 3, kernel_size: Any = 5, dim: int = 12, **options: Any) -> LocalAttention:
    return LocalAttention(dim, spec, heads=heads, kernel_size=kernel_size, **{**DOUBLE, **options})


def image(*size: int, dim: int = 12) -> Tensor:
    return torch.randn(2, *(size or (9, 8)), dim, **DOUBLE)


def neighbours(x: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """The taps of every pixel over zeros, (B, C, K², H, W), of (B, H, W, C)."""
    padding = kernel_size // 2 * dilation
    patches = F.unfold(x.permute(0, 3, 1, 2), kernel_size, dilation, padding)
    return patches.view(x.shape[0], x.shape[3], kernel_size**2, *x.shape[1:3])


def aggregated(weights: Tensor, value: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """``Σ_t weights[b, h, t, y, x] · value at tap t``, weights of heads or of channels; (B, H, W, C)."""
    weights = weights.repeat_interleave(value.shape[3] // weights.shape[1], 1)
    return (weights * neighbours(value, kernel_size, dilation)).sum(2).permute(0, 2, 3, 1)


def of_timm(block: Any, **changed: Any) -> LocalAttention:
    """The member that computes what a block of timm's Swin does, with its weights."""
    theirs = block.attn
    nn.init.normal_(theirs.relative_position_bias_table)
    rows, columns = theirs.window_size
    ours = layer(
        "qk+rb softmax window", theirs.num_heads, (rows, columns), theirs.dim, shift=block.shift_size, **changed
    )
    table = theirs.relative_position_bias_table.detach().view(2 * rows - 1, 2 * columns - 1, -1)
    state = {name: p for name, p in theirs.state_dict().items() if "relative" not in name}
    ours.load_state_dict({**state, "r_bias": table.flip(0, 1).permute(2, 0, 1)})
    return ours


@pytest.mark.parametrize("size", [(14, 21), (7, 14)])
@pytest.mark.parametrize("shift", [0, 3])
def test_windows_of_swin(size: tuple[int, int], shift: int) -> None:
    """Every second block of a Swin shifts them by half a window."""
    block = SwinTransformerBlock(24, size, 3, window_size=7, shift_size=shift, always_partition=True, **DOUBLE)
    x = image(*size, dim=24)
    assert_agrees("out", of_timm(block)(x), block._attn(x).detach())


def test_windows_that_do_not_divide_the_map() -> None:
    block = SwinTransformerBlock(24, (10, 5), 3, window_size=4, always_partition=True, **DOUBLE)
    x = image(10, 5, dim=24)
    assert_agrees("out", of_timm(block)(x), block._attn(x).detach())
    # timm shifts before it pads; the windows of the paper are those of the map with zeros around it.
    block = SwinTransformerBlock(24, (12, 8), 3, window_size=4, shift_size=2, **DOUBLE)
    ours = of_timm(block)
    expected = block._attn(F.pad(x, (0, 0, 0, 3, 0, 2)))[:, :10, :5].detach()
    assert_agrees("shifted", ours(x), expected)


@pytest.mark.parametrize("options", [{"kernel_size": 5}, {"kernel_size": 3, "dilation": 2}], ids=str)
def test_sliding_windows_of_natten(options: dict[str, int]) -> None:
    ours = layer("qk+rb softmax neighborhood border=shift", **options)
    x = image()
    query, key, value = ours.qkv(x).unflatten(-1, (3, 3, 4)).permute(3, 0, 4, 1, 2, 5)
    dilation = options.get("dilation", 1)
    logits = natten.natten2dqkrpb(query * ours.scale, key, ours.r_bias, options["kernel_size"], dilation)
    out = natten.natten2dav(logits.softmax(-1), value, options["kernel_size"], dilation)
    assert_agrees("out", ours(x), ours.proj(out.permute(0, 2, 3, 1, 4).flatten(3)).detach())


@pytest.mark.parametrize(("dilation", "terms"), [(1, "qk+rb"), (2, "qk+qr+rk+rb"), (1, "qr"), (1, "rk+rb")])
@pytest.mark.parametrize("norm", ["softmax", "filter", "none"])
def test_terms_and_norms_by_unfold(dilation: int, terms: str, norm: str) -> None:
    ours = layer(f"{terms} {norm} neighborhood mul add", dilation=dilation)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    x = image()
    parts = ours.qkv(x).split(12, -1)
    value = parts[-1]
    logits = 0
    if ours.has_query:
        query = parts[0].unflatten(-1, (3, 4))  # (B, H, W, heads, d)
    if ours.has_key:
        key = neighbours(parts[-2], 5, dilation).unflatten(1, (3, 4))  # (B, heads, d, K², H, W)
    if "qk" in terms:
        logits = ours.scale * torch.einsum("byxhd,bhdtyx->bhtyx", query, key)
    if "qr" in terms:
        logits = logits + torch.einsum("byxhd,hdt->bhtyx", query, ours.r_key.flatten(2))
    if "rk" in terms:
        logits = logits + torch.einsum("hdt,bhdtyx->bhtyx", ours.r_query.flatten(2), key)
    if "rb" in terms:
        logits = logits + ours.r_bias.flatten(1)[..., None, None]
    if norm == "softmax":
        weights = logits.softmax(2)
    elif norm == "filter":
        weights = (logits - logits.mean(2, True)) / (logits.std(2, keepdim=True) + 1e-10)
        weights = weights * ours.gain[:, None, None, None]
    else:
        weights = logits
    filters = weights.repeat_interleave(4, 1) * ours.ghost_mul.flatten(1)[..., None, None]
    filters = filters + ours.ghost_add.flatten(1)[..., None, None]
    assert_agrees("out", ours(x), ours.proj(aggregated(filters, value, 5, dilation)).detach())


@pytest.mark.parametrize("region", ["window", "neighborhood border=shift", "neighborhood border=circular"])
def test_terms_at_moving_offsets(region: str) -> None:
    """Against the formula, pair of pixels by pair of pixels."""
    ours = layer(f"qk+qr+rk+rb filter {region}", 2, (3, 4), 4)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    x = image(6, 8, dim=4)
    query, key, value = ours.qkv(x).unflatten(-1, (3, 2, 2)).unbind(3)
    out = torch.empty_like(value)
    for row, column in itertools.product(range(6), range(8)):
        pairs = []
        for i, j in itertools.product(range(3), range(4)):
            if region == "window":
                y, x_ = row // 3 * 3 + i, column // 4 * 4 + j
            elif region.endswith("shift"):
                y, x_ = min(max(row - 1, 0), 3) + i, min(max(column - 2, 0), 4) + j
            else:
                y, x_ = row - 1 + i, column - 2 + j
            moving = not region.endswith("circular")
            at = (slice(None), y - row + 2, x_ - column + 3) if moving else (slice(None), i, j)
            k, v = key[:, y % 6, x_ % 8], value[:, y % 6, x_ % 8]
            q = query[:, row, column]
            r_key, r_query = ours.r_key[:, :, at[1], at[2]], ours.r_query[:, :, at[1], at[2]]
            pairs.append(((q * k * ours.scale + q * r_key + r_query * k).sum(-1) + ours.r_bias[at], v))
        logits = torch.stack([logit for logit, _ in pairs], -1)
        weights = (logits - logits.mean(-1, True)) / (logits.std(-1, keepdim=True) + 1e-10) * ours.gain[:, None]
        out[:, row, column] = sum(weights[..., t, None] * v for t, (_, v) in enumerate(pairs))
    assert_agrees("out", ours(x), ours.proj(out.flatten(3)).detach())


@pytest.mark.parametrize("matrices", ["mul add", "mul", "add"])
@pytest.mark.parametrize("terms", ["qk+rb softmax", "rb none"])
def test_ghost_matrices_in_shifted_windows(terms: str, matrices: str) -> None:
    """A tap is the same one in what the edges leave of a window: against the formula, pixel by pixel."""
    ours = layer(f"{terms} window {matrices}", 2, (3, 4), 4, shift=(1, 2))
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    x = image(6, 8, dim=4)
    *others, value = ours.qkv(x).unflatten(-1, (-1, 2, 2)).unbind(3)
    mul = torch.ones(4, 3, 4, **DOUBLE) if ours.ghost_mul is None else ours.ghost_mul
    add = torch.zeros(4, 3, 4, **DOUBLE) if ours.ghost_add is None else ours.ghost_add
    out = torch.zeros(2, 6, 8, 4, **DOUBLE)
    for row, column in itertools.product(range(6), range(8)):
        top, left = (row - 1) // 3 * 3 + 1, (column - 2) // 4 * 4 + 2
        inside = [(i, j) for i in range(3) for j in range(4) if 0 <= top + i < 6 and 0 <= left + j < 8]
        logits = []
        for i, j in inside:
            logit = ours.r_bias[:, top + i - row + 2, left + j - column + 3].expand(2, 2)
            if others:
                query, key = others
                logit = logit + ours.scale * (query[:, row, column] * key[:, top + i, left + j]).sum(-1)
            logits.append(logit)
        weights = torch.stack(logits, -1)
        weights = weights.softmax(-1) if others else weights
        for t, (i, j) in enumerate(inside):
            filters = weights[..., t].repeat_interleave(2, 1) * mul[:, i, j] + add[:, i, j]
            out[:, row, column] += filters * value[:, top + i, left + j].flatten(1)
    assert_agrees("out", ours(x), ours.proj(out).detach())


@pytest.mark.parametrize("kernel_size", [5, 4])
def test_depthwise_convolution(kernel_size: int) -> None:
    ours = layer("rb none neighborhood heads=C", None, kernel_size, dilation=2)
    x = image()
    value = ours.qkv(x).permute(0, 3, 1, 2)
    before, after = kernel_size // 2 * 2, (kernel_size - 1) // 2 * 2
    value = F.pad(value, (before, after, before, after))
    out = F.conv2d(value, ours.r_bias.unsqueeze(1), dilation=2, groups=12)
    assert_agrees("out", ours(x), ours.proj(out.permute(0, 2, 3, 1)).detach())


@pytest.mark.parametrize("shift", [0, 2])
def test_depthwise_convolution_in_windows(shift: int) -> None:
    ours = layer("rb none window heads=C", None, 5, shift=shift)
    x = image(15, 10)
    value, out = ours.qkv(x).permute(0, 3, 1, 2), torch.zeros(2, 12, 15, 10, **DOUBLE)
    cuts = [sorted({0, length, *range(shift, length, 5)}) for length in (15, 10)]
    for (top, bottom), (left, right) in itertools.product(*map(itertools.pairwise, cuts)):
        inside = value[:, :, top:bottom, left:right]
        out[:, :, top:bottom, left:right] = F.conv2d(inside, ours.r_bias.unsqueeze(1), padding=4, groups=12)
    assert_agrees("out", ours(x), ours.proj(out.permute(0, 2, 3, 1)).detach())


@pytest.mark.parametrize("border", ["mask", "circular", "shift"])
def test_static_weights_are_those_of_a_map_of_them(border: str) -> None:
    """An attention whose products are zero has the same weights."""
    ours = layer(f"rb softmax neighborhood mul border={border}", kernel_size=3)
    general = layer(f"qk+rb softmax neighborhood mul border={border}", kernel_size=3)
    general.load_state_dict({name: p for name, p in ours.state_dict().items() if "qkv" not in name}, strict=False)
    with torch.no_grad():
        for name in ("weight", "bias"):
            made = getattr(general.qkv, name)
            made[:12] = 0
            made[24:] = getattr(ours.qkv, name)
    x = image(6, 7)
    assert_agrees("out", ours(x), general(x).detach())


@pytest.mark.parametrize(("mul", "add"), [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_elsa(mul: int, add: int) -> None:
    theirs = ELSA(12, 3, kernel_size=5, group_width=4, dilation=2, lam=mul, gamma=add, qkv_bias=True, **DOUBLE)
    spec = "hadamard softmax neighborhood" + " mul" * mul + " add" * add
    ours = layer(spec, group_width=4, dilation=2)
    state = {f"hadamard.layers.{name}": p for name, p in theirs.attn.state_dict().items()}
    state |= {"qkv.weight": theirs.pre_proj.weight.flatten(1), "qkv.bias": theirs.pre_proj.bias}
    state |= {f"proj.{name}": p for name, p in theirs.post_proj.state_dict().items()}
    matrices = [] if theirs.ghost_head is None else list(theirs.ghost_head.view(-1, 12, 5, 5))
    state |= dict(zip(["ghost_mul"] * mul + ["ghost_add"] * add, matrices, strict=True))
    ours.load_state_dict(state)
    x = image()
    assert_agrees("out", ours(x), theirs(x).detach())
    layers = ours.hadamard.layers
    layers[1].register_forward_hook(lambda module, inputs, out: out)  # now the layers are called
    assert_agrees("layer by layer", ours(x), theirs(x).detach())


SPECS = (
    "qk+rb softmax window",
    "qk softmax neighborhood border=mask",
    "qr none neighborhood",
    "rb none neighborhood heads=C",
    "rb filter window mul add heads=C",
    "rk+rb softmax neighborhood border=circular",
    "qk+qr+rk+rb filter neighborhood add border=shift",
    "hadamard softmax neighborhood mul add",
    "hadamard filter neighborhood",
)


def any_layer(spec: str, **options: Any) -> LocalAttention:
    size, shift = (5, 2) if "window" in spec else (3, 0)
    return layer(spec, None if "heads" in spec else 2, size, 8, shift=shift, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("spec", SPECS)
def test_gradients(spec: str) -> None:
    made = any_layer(spec)
    x = image(6, 6, dim=8)[:1].requires_grad_()
    names, parameters = zip(*made.named_parameters(), strict=True)

    def run(*given: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(names, given[1:], strict=True)), given[0])

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.thorough
@pytest.mark.parametrize("spec", SPECS)
def test_bfloat16(spec: str) -> None:
    exact = any_layer(spec)
    rounded = any_layer(spec, dtype=torch.bfloat16)
    rounded.load_state_dict(exact.state_dict())
    exact.load_state_dict(rounded.state_dict())
    x = image(7, 8, dim=8).bfloat16()
    out, expected = rounded(x).detach(), exact(x.double()).detach()
    assert out.dtype == torch.bfloat16
    assert float((out - expected).norm() / expected.norm()) < 0.02


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("spec", SPECS)
def test_scripted_traced_and_exported(spec: str) -> None:
    made = any_layer(spec)
    x = image(7, 8, dim=8)
    expected = made(x)
    exported = torch.export.export(made, (x,)).module()
    for other in (torch.jit.script(made), torch.fx.symbolic_trace(made), exported):
        torch.testing.assert_close(other(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_compiled(spec: str) -> None:
    torch.compiler.reset()  # the layers of these tests share code, which is compiled 8 times at most
    made = any_layer(spec, dtype=torch.float32)
    x = image(7, 8, dim=8).float()
    # The code generator is not ours to test, and takes a quarter of a minute.
    compiled = torch.compile(made, fullgraph=True, backend="inductor" if spec == SPECS[0] else "aot_eager")
    torch.testing.assert_close(compiled(x), made(x))


@pytest.mark.parametrize("spec", ["qk+rb softmax window", "rb none window"])
def test_dropout_of_the_weights(spec: str) -> None:
    made = layer(spec, attn_drop=1.0, qkv_bias=False)
    x = image(10, 10)
    assert torch.equal(made(x), made.proj.bias.expand(2, 10, 10, 12))
    assert not torch.equal(made.eval()(x), made.proj.bias.expand(2, 10, 10, 12))


def test_small_maps_over_the_border_shift() -> None:
    """Every pixel attends to what there is, by the same tables."""
    made = layer("qk+qr+rk+rb softmax neighborhood border=shift")
    x = image(3, 4)
    small = layer("qk+qr+rk+rb softmax neighborhood border=shift", kernel_size=(3, 4))
    tables = {name: made.state_dict()[name][..., 2:-2, 1:-1] for name in ("r_key", "r_query", "r_bias")}
    small.load_state_dict({**made.state_dict(), **tables})
    assert_agrees("out", made(x), small(x).detach())


def test_repr_shows_the_spec() -> None:
    spec = "qk+rb filter window mul"
    assert f"'{spec}', dim=12, heads=3, head_dim=4, kernel_size=[5, 5]" in repr(layer(spec))


@pytest.mark.parametrize("spec", SPECS)
def test_specs_are_strings(spec: str) -> None:
    assert str(LocalSpec.parse(spec)) == spec


def test_terms_in_any_order() -> None:
    assert LocalSpec.parse("rb+qk softmax window") == LocalSpec(("qk", "rb"), "softmax", "window")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "softmax window",
            "a spec has terms, a norm and a region, as in \"qk+rb softmax window\", got 'softmax window'",
        ),
        ("qk+kv softmax window", "terms are qk, qr, rk, rb, joined by \"+\", or hadamard, got 'kv'"),
        ("qk+qk softmax window", "terms must be one or more, each of them once, got 'qk+qk'"),
        ("qk+hadamard softmax window", "hadamard stands alone: its weights are no sum, got qk+hadamard"),
        ("qk relu window", "norm must be softmax, filter or none, got 'relu'"),
        ("qk softmax global", "region must be neighborhood or window, got 'global'"),
        ("qk softmax neighborhood border=reflect", "border must be zeros, mask, circular or shift, got 'reflect'"),
        (
            "qk softmax window twice",
            "after the region come mul, add, border=NAME and heads=NUMBER or heads=C, each once, got 'twice'",
        ),
        ("qk softmax window heads=0", 'heads must be a positive number or "C", got 0'),
        ("qk softmax window border=zeros", "border is of a neighborhood: a window has no taps outside of it"),
        (
            "qk none neighborhood border=mask",
            'border "mask" is for a softmax: without one, taps outside the map weigh nothing over "zeros" too',
        ),
        (
            "hadamard softmax window",
            "hadamard goes with a neighborhood: its convolution looks across the edges of windows",
        ),
        (
            "hadamard softmax neighborhood border=shift",
            'hadamard goes with the border "zeros": that is what its convolution sees, got "shift"',
        ),
    ],
)
def test_specs_that_make_no_sense(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LocalAttention(12, spec, heads=3, kernel_size=5)
    assert str(caught.value) == f"LocalSpec: {message}"


@pytest.mark.parametrize(
    ("spec", "changed", "message"),
    [
        ("qk softmax window", {"heads": 5}, "heads must divide dim = 12, got 5"),
        (
            "qk softmax window",
            {"heads": None},
            "heads must be given, by the argument or in the spec, qk softmax window",
        ),
        (
            "qk softmax window heads=C",
            {},
            "heads must be 12, as in the spec, qk softmax window heads=C, got 3",
        ),
        ("qk softmax neighborhood", {"shift": 1}, 'shift is of windows, got [1, 1] with "qk softmax neighborhood"'),
        ("qk softmax window", {"shift": 5}, "shift must be from 0 to less than kernel_size = [5, 5], got [5, 5]"),
        (
            "qk softmax window",
            {"shift": 1, "dilation": 2},
            "shift needs a dilation of 1: windows that reach between each other have no edges, got [2, 2]",
        ),
        (
            "hadamard softmax neighborhood",
            {"kernel_size": 4},
            "hadamard needs one odd kernel_size and one dilation for both axes, got [4, 4] and [1, 1]",
        ),
        (
            "qk filter neighborhood",
            {"kernel_size": 1},
            "the norm filter needs 2 taps or more, got a kernel_size of [1, 1] and a shift of [0, 0]",
        ),
        (
            "qk filter window",
            {"kernel_size": 2, "shift": 1},
            "the norm filter needs 2 taps or more, got a kernel_size of [2, 2] and a shift of [1, 1]",
        ),
    ],
)
def test_arguments_that_make_no_sense(spec: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LocalAttention(12, spec, **{"heads": 3, "kernel_size": 5, **changed})
    assert str(caught.value) == f"LocalAttention: {message}"


def test_bad_inputs() -> None:
    with pytest.raises(ValueError, match=r"LocalAttention: the input must have shape \(B, H, W, 12\), got \[2, 12\]"):
        layer("qk softmax window")(torch.zeros(2, 12))

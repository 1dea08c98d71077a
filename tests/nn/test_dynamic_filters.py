"""``nn.DDF``, ``nn.DDFUp``, ``nn.Involution`` and ``nn.CARAFE`` against unfolding."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsa_ext.nn import CARAFE, DDF, DDFUp, Involution
from golden import assert_agrees
from torch import Tensor, nn

DOUBLE = {"dtype": torch.float64}


def image(channels: int = 16, height: int = 8, width: int = 6) -> Tensor:
    return torch.randn(2, channels, height, width, **DOUBLE)


def taps(x: Tensor, kernel_size: int, dilation: int = 1, stride: int = 1) -> Tensor:
    """(B, C, K², H // stride, W // stride)."""
    patches = F.unfold(x, kernel_size, dilation, kernel_size // 2 * dilation, stride)
    height, width = x.shape[2:]
    whole = patches.view(*x.shape[:2], kernel_size**2, -(-height // stride), -(-width // stride))
    return whole[..., : height // stride, : width // stride]


def normalised(filters: Tensor, dim: int) -> Tensor:
    return (filters - filters.mean(dim, True)) / (filters.std(dim, keepdim=True) + 1e-10)


def filtered(layer: DDF, x: Tensor) -> Tensor:
    """What a DDF is, from its layers' weights."""
    conv, (_, first, _, second, norm) = layer.spatial_branch[0], layer.channel_branch
    std = nn.init.calculate_gain("relu") / layer.kernel_size
    corners = x[:, :, :: layer.stride, :: layer.stride][
        :, :, : x.shape[2] // layer.stride, : x.shape[3] // layer.stride
    ]
    of_pixels = normalised(F.conv2d(corners, conv.weight, conv.bias), 1) * std
    hidden = F.relu(F.linear(x.mean((2, 3)), first.weight.flatten(1), first.bias))
    of_channels = F.linear(hidden, second.weight.flatten(1), second.bias).view(*x.shape[:2], -1)
    of_channels = (normalised(of_channels, 2) * norm.std.view(x.shape[1], -1))[..., None, None]
    of_pixels = of_pixels.unsqueeze(1)
    filters = of_channels * of_pixels if layer.combine == "mul" else of_channels + of_pixels
    return (filters * taps(x, layer.kernel_size, layer.dilation, layer.stride)).sum(2)


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "dilation": 2}, {"stride": 2}, {"stride": 3}], ids=str)
def test_ddf(combine: str, options: dict[str, int]) -> None:
    layer = DDF(16, combine=combine, **options, **DOUBLE)
    x = image()
    assert_agrees("out", layer(x), filtered(layer, x).detach())


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_ddf_up(combine: str) -> None:
    layer = DDFUp(16, combine=combine, nonlinearity="relu", **DOUBLE)
    x, out = image(), torch.empty(2, 16, 16, 12, **DOUBLE)
    for number, filters in enumerate(layer.filters):
        out[:, :, number // 2 :: 2, number % 2 :: 2] = filtered(filters, x)
    assert_agrees("out", layer(x), out.detach())


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"kernel_size": 3, "dilation": 2}], ids=str)
def test_involution(options: dict[str, int]) -> None:
    layer = Involution(32, **{"kernel_size": 5, **options}, **DOUBLE)
    x = image(32)
    pooled = F.avg_pool2d(x, layer.stride)
    hidden = F.conv2d(pooled, layer.conv1.conv.weight)
    hidden = (hidden - hidden.mean((0, 2, 3), True)) / (hidden.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    filters = F.conv2d(hidden.relu(), layer.conv2.conv.weight, layer.conv2.conv.bias)
    filters = filters.unflatten(1, (2, -1)).repeat_interleave(16, 1)
    expected = (filters * taps(x, layer.kernel_size, layer.dilation, layer.stride)).sum(2)
    assert_agrees("out", layer(x), expected.detach())


@pytest.mark.parametrize(("scale", "groups"), [(2, 1), (3, 2)])
def test_carafe(scale: int, groups: int) -> None:
    layer = CARAFE(16, scale, groups=groups, compressed_channels=8, **DOUBLE)
    nn.init.normal_(layer.content_encoder.weight)
    x = image()
    logits = F.pixel_shuffle(layer.content_encoder(layer.channel_compressor(x)), scale)
    weights = logits.view(2, groups, 25, 8 * scale, 6 * scale).softmax(2).repeat_interleave(16 // groups, 1)
    near = taps(x, 5).repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    assert_agrees("out", layer(x), (weights * near).sum(2).detach())


LAYERS: dict[str, Any] = {
    "ddf": lambda **options: DDF(16, **options),
    "ddf_add": lambda **options: DDF(16, stride=2, combine="add", **options),
    "ddf_up": lambda **options: DDFUp(16, **options),
    "involution": lambda **options: Involution(16, 3, **options),
    "carafe": lambda **options: CARAFE(16, 2, 3, compressed_channels=4, **options),
}


@pytest.mark.thorough
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_gradients(make: Any) -> None:
    layer = make(**DOUBLE)
    x = image(16, 4, 4).requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(*given: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, given[1:], strict=True)), given[0])

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_scripted_traced_exported_and_channels_last(make: Any) -> None:
    layer = make(**DOUBLE).eval()
    x = image()
    expected = layer(x)
    exported = torch.export.export(layer, (x,)).module()
    for other in (torch.jit.script(layer), torch.fx.symbolic_trace(layer), exported):
        torch.testing.assert_close(other(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_compiled(make: Any) -> None:
    torch.compiler.reset()  # the layers of these tests share code, which is compiled 8 times at most
    layer = make().eval()
    x = image().float()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.thorough
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_bfloat16(make: Any) -> None:
    exact, rounded = make(**DOUBLE), make(dtype=torch.bfloat16)
    rounded.load_state_dict(exact.state_dict())
    exact.load_state_dict(rounded.state_dict())
    x = image().bfloat16()
    out, expected = rounded(x).detach(), exact(x.double()).detach()
    assert out.dtype == torch.bfloat16
    assert float((out - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDF(16, 4), "DDF: kernel_size must be odd and more than 1, got 4"),
        (lambda: DDF(16, combine="sub"), 'DDF: combine must be "mul" or "add", got \'sub\''),
        (lambda: DDF(4, se_ratio=0.2), "DDF: se_ratio must leave a channel of 4, got 0.2"),
        (lambda: DDFUp(16, scale_factor=0), "DDFUp: scale_factor must be a positive integer, got 0"),
        (lambda: Involution(24), "Involution: group_width must divide channels = 24, got 16"),
        (lambda: Involution(16, reduction=32), "Involution: reduction must leave a channel of 16, got 32"),
        (lambda: CARAFE(16, groups=3), "CARAFE: groups must divide channels = 16, got 3"),
        (lambda: CARAFE(16, encoder_kernel=2), "CARAFE: encoder_kernel must be odd, got 2"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == message


def test_reprs() -> None:
    assert "channels=16, kernel_size=3, stride=1, dilation=1, combine='mul'" in repr(DDF(16))
    assert "scale_factor=2" in repr(DDFUp(16))
    assert "channels=16, kernel_size=7, stride=1, dilation=1, group_width=16" in repr(Involution(16))
    assert "channels=16, scale_factor=2, kernel_size=5, groups=1" in repr(CARAFE(16))

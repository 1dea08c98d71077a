"""``nn.ELSA`` is made of the layers that it shows: whatever is done to one of them acts on the result."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsa_ext.nn import ELSA
from elsa_ext.nn.layers import PointwiseConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS = ["pre_proj", "attn", "attn.0", "attn.1", "attn.2", "attn_drop", "post_proj", "proj_drop"]
WITH_WEIGHT = ["pre_proj", "attn.0", "attn.2", "post_proj"]
# PyTorch's own functions of these names warn that others are to replace them, or that TorchScript is.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm"),
    pytest.mark.filterwarnings("ignore:`torch.jit"),
]


def layer(**options: Any) -> ELSA:
    return ELSA(24, 2, kernel_size=3, dtype=torch.float64, **options)


def image() -> Tensor:
    return torch.randn(2, 5, 6, 24, dtype=torch.float64)


def by_hand(module: ELSA, x: Tensor) -> Tensor:
    """The formula from calls of the submodules, K² shifted maps at a time."""
    size, heads = module.kernel_size, module.num_heads
    qkv = module.pre_proj(x.movedim(-1, 1))
    query, key, value = qkv.split([module.dim_qk, module.dim_qk, module.dim_v], 1)
    product = query * key * module.scale
    product = F.avg_pool2d(product, module.stride) if module.stride > 1 else product
    attn = module.attn(product).unflatten(1, (heads, size**2)).softmax(2)
    weight = module.attn_drop(attn).repeat_interleave(module.dim_v // heads, 1)
    if module.ghost_head is not None:
        mul, add = module.ghost_head.flatten(0, 1).reshape(2, module.dim_v, size**2, 1, 1)
        weight = weight * mul + add
    taps = F.unfold(value, size, module.dilation, size // 2 * module.dilation, module.stride)
    taps = taps.reshape(len(x), module.dim_v, size**2, *weight.shape[-2:])
    return module.proj_drop(module.post_proj((weight * taps).sum(2).movedim(1, -1)))


class Ops(TorchDispatchMode):
    """Notes the names of the ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def runs_fused_op(module: ELSA) -> bool:
    with Ops() as ops, torch.no_grad():
        module(image())
    return "elsa::hadamard_attention" in ops.names


def check_called(module: ELSA) -> None:
    """The layers of attn are called, and give what they give by hand, and so do all gradients."""
    assert not module.fused and not runs_fused_op(module)
    x = image()
    out, expected = module(x), by_hand(module, x)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12)
    parameters = list(module.parameters())
    grads = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    expected_grads = torch.autograd.grad(expected.square().sum(), parameters, allow_unused=True)
    for (name, _), grad, want in zip(module.named_parameters(), grads, expected_grads, strict=True):
        assert want is not None, name
        torch.testing.assert_close(grad, want, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("options", [{}, {"stride": 2, "dilation": 2}, {"groups": 2, "qk_scale": 2.0}], ids=str)
def test_layers_as_they_are_made_are_fused(options: dict[str, Any]) -> None:
    module = layer(**options)
    x = image() if module.stride == 1 else torch.randn(2, 6, 4, 24, dtype=torch.float64)
    assert module.fused
    fused = module(x)
    torch.testing.assert_close(fused, by_hand(module, x), rtol=1e-11, atol=1e-12)
    handle = module.attn.register_forward_hook(lambda *_: None)
    assert not module.fused
    torch.testing.assert_close(module(x), fused, rtol=1e-11, atol=1e-12)
    handle.remove()
    assert module.fused and torch.equal(module(x), fused)


def test_fused_after_copies_and_moves() -> None:
    module = layer()
    for made in (copy.deepcopy(module), module.float(), module.to(memory_format=torch.channels_last), module.eval()):
        assert made.fused
    assert module.requires_grad_(False).fused


HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], Any]] = {
    "forward": lambda module, note: module.register_forward_hook(note),
    "forward with keywords": lambda module, note: module.register_forward_hook(note, with_kwargs=True),
    "forward before": lambda module, note: module.register_forward_pre_hook(note),
    "backward": lambda module, note: module.register_full_backward_hook(note),
    "backward before": lambda module, note: module.register_full_backward_pre_hook(note),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", LAYERS)
def test_hooks_fire(name: str, kind: str) -> None:
    module, calls = layer(), []
    HOOKS[kind](module.get_submodule(name), lambda *_, **__: calls.append(name))
    module(image().requires_grad_()).sum().backward()
    assert calls == [name]


def test_hooks_of_all_modules_fire() -> None:
    module, calls = layer(), []
    handle = nn.modules.module.register_module_forward_hook(lambda called, *_: calls.append(called))
    try:
        module(image())
    finally:
        handle.remove()
    assert all(submodule in calls for submodule in module.modules())


def test_a_hook_that_replaces_the_result() -> None:
    module = layer()
    module.attn[1].register_forward_hook(lambda _, __, out: out.relu())
    check_called(module)


class Adapter(nn.Module):
    """What fine-tuning puts around a layer: its result, and a small part of one's own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gain = nn.Parameter(torch.full((), 0.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.gain * self.inner(x).tanh()


@pytest.mark.parametrize("name", WITH_WEIGHT)
def test_adapters_act_and_train(name: str) -> None:
    module, x = layer(), image()
    before = module(x)
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, Adapter(module.get_submodule(name)))
    out = module(x)
    assert not torch.allclose(out, before)
    out.square().sum().backward()
    assert module.get_submodule(name).gain.grad.abs() > 0
    torch.testing.assert_close(out, by_hand(module, x), rtol=1e-11, atol=1e-12)


def test_an_adapter_can_make_a_layer_of_the_same_type() -> None:
    """As low-rank adapters do: with the type of what they wrap, and the arguments of ``nn.Conv2d``."""
    base = layer().pre_proj
    down = type(base)(base.in_channels, 2, base.kernel_size, base.stride, base.padding, bias=False)
    up = type(base)(2, base.out_channels, (1, 1), (1, 1), bias=False)
    x = torch.randn(2, 24, 5, 6)
    expected = F.conv2d(F.conv2d(x, down.weight), up.weight)
    torch.testing.assert_close(up(down(x)), expected)


REPLACEMENTS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "another activation": ("attn.1", nn.ReLU),
    "GELU of another kind": ("attn.1", lambda: nn.GELU(approximate="tanh")),
    "a subclass of GELU": ("attn.1", type("Doubled", (nn.GELU,), {"forward": lambda self, x: 2 * F.gelu(x)})),
    "another border": ("attn.0", lambda: nn.Conv2d(16, 16, 3, padding=1, groups=2, padding_mode="reflect")),
    "a larger kernel": ("attn.0", lambda: nn.Conv2d(16, 16, 5, padding=2, groups=2)),
    "another dilation": ("attn.0", lambda: nn.Conv2d(16, 16, 3, padding=2, dilation=2)),
    "other widths": ("attn", lambda: nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 18, 1))),
    "a projection that looks around": ("attn.2", lambda: nn.Conv2d(16, 18, 3, padding=1)),
    "a grouped projection": ("attn.2", lambda: nn.Conv2d(16, 18, 1, groups=2)),
    "more layers": (
        "attn",
        lambda: nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 18, 1), nn.Tanh()),
    ),
    "something else": ("attn", lambda: nn.Conv2d(16, 18, 1)),
}


@pytest.mark.parametrize("what", REPLACEMENTS)
def test_replaced_layers_are_called(what: str) -> None:
    name, make = REPLACEMENTS[what]
    module = layer()
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, make().double())
    check_called(module)


def test_a_convolution_that_shrinks_the_map_is_called() -> None:
    """The op would keep the size of the map, and go by its own dilation."""
    module = layer()
    module.attn[0] = nn.Conv2d(16, 16, 3, padding=1, dilation=2, groups=2).double()
    assert not module.fused
    with pytest.raises(
        RuntimeError, match=r"elsa::ghost_head: attn must have shape \(2, 18, 5, 6\), got \(2, 18, 3, 4\)"
    ):
        module(image())


def test_a_forward_of_the_instance_is_called() -> None:
    """As offloading and instrumentation put it there."""
    module = layer()
    original = module.attn[0].forward
    module.attn[0].forward = lambda x: 3 * original(x)
    check_called(module)


def test_weights_that_are_there_during_a_call_alone() -> None:
    module, x = layer(), image()
    expected = module(x)
    for name in WITH_WEIGHT:
        submodule = module.get_submodule(name)
        weights = {key: value.detach().clone() for key, value in submodule.named_parameters()}
        submodule.to("meta")

        def bring(called: nn.Module, _: Any, weights: dict[str, Tensor] = weights) -> None:
            for key, value in weights.items():
                called._parameters[key] = nn.Parameter(value)

        submodule.register_forward_pre_hook(bring)
        submodule.register_forward_hook(lambda called, *_: called.to("meta") and None)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("name", WITH_WEIGHT)
@pytest.mark.parametrize(
    "method", [prune.random_unstructured, prune.l1_unstructured], ids=lambda method: method.__name__
)
def test_pruned_layers_train(name: str, method: Callable[..., Any]) -> None:
    module = layer()
    method(module.get_submodule(name), "weight", 0.5)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(image()).square().mean().backward()
        optimizer.step()
    assert (module.get_submodule(name).weight == 0).sum() >= module.get_submodule(name).weight.numel() // 2
    x = image()
    pruned = module(x)
    prune.remove(module.get_submodule(name), "weight")
    assert module.fused
    torch.testing.assert_close(module(x), pruned, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", WITH_WEIGHT)
@pytest.mark.parametrize(
    "norm",
    [
        nn.utils.weight_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
    ids=lambda norm: f"{norm.__module__}.{norm.__name__}",
)
def test_normalised_layers_train(name: str, norm: Callable[[nn.Module], nn.Module]) -> None:
    module = layer()
    norm(module.get_submodule(name))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(image()).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.eval()
    x = image()
    torch.testing.assert_close(module(x), by_hand(module, x), rtol=1e-11, atol=1e-12)


def test_a_parametrized_ghost_head_acts() -> None:
    module = layer()
    parametrize.register_parametrization(
        module, "ghost_head", type("Half", (nn.Module,), {"forward": lambda s, x: x / 2})()
    )
    x = image()
    torch.testing.assert_close(module(x), by_hand(module, x), rtol=1e-11, atol=1e-12)


def test_weights_with_a_meaning_of_their_own_are_left_to_their_layer() -> None:
    """Quantised and distributed tensors know what a convolution of them is, and not what our op is."""
    module = layer()
    weight = module.attn[0].weight.detach()
    module.attn[0].weight = nn.Parameter(TwoTensor(weight, 2 * weight))
    assert not module.fused
    x = image()
    out = module(x)
    assert isinstance(out, TwoTensor)
    torch.testing.assert_close(out.a, layer_with(module, weight)(x), rtol=1e-11, atol=1e-12)


def layer_with(module: ELSA, weight: Tensor) -> ELSA:
    plain = layer()
    plain.load_state_dict({**module.state_dict(), "attn.0.weight": weight})
    return plain


@pytest.mark.parametrize("replaced", [False, True])
def test_compiled_scripted_and_exported_layers_are_those_that_are_there(replaced: bool) -> None:
    module, x = layer(), image()
    if replaced:
        module.attn[1] = nn.Tanh()
    expected = module(x)
    scripted = torch.jit.script(module)
    assert ("elsa::hadamard_attention" in str(scripted.inlined_graph)) is not replaced
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    exported = torch.export.export(module, (x,))
    targets = {str(node.target) for node in exported.graph.nodes}
    assert ("elsa.hadamard_attention.default" in targets) is not replaced
    traced = torch.fx.symbolic_trace(module)
    for made in (scripted, compiled, exported.module(), traced):
        torch.testing.assert_close(made(x), expected, rtol=1e-11, atol=1e-12)


def test_compiled_code_follows_a_replacement() -> None:
    module, x = layer(), image()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    expected = compiled(x)
    module.attn[1] = nn.ReLU()
    out = compiled(x)
    assert not torch.allclose(out, expected)
    torch.testing.assert_close(out, by_hand(module, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_pointwise_conv_is_conv2d(dtype: torch.dtype) -> None:
    conv = PointwiseConv2d(6, 10, 1, dtype=dtype)
    plain = nn.Conv2d(6, 10, 1, dtype=dtype)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 6, 5, 4, dtype=dtype)
    for given in (x, x.to(memory_format=torch.channels_last)):
        out = conv(given)
        rounding = torch.finfo(dtype).eps * 4
        torch.testing.assert_close(out, plain(given), rtol=rounding, atol=rounding)
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 1, "padding": 1},
        {"kernel_size": 1, "groups": 2},
    ],
    ids=str,
)
def test_pointwise_conv_is_no_other(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^PointwiseConv2d: kernel_size, stride, padding and groups must be"):
        PointwiseConv2d(4, 4, **options)

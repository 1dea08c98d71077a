"""``nn.ELSA``: the official numbers, names and defaults, and no hidden copies."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import elsa_ext.nn.elsa
import golden
import pytest
import restated
import torch
from elsa_ext.nn import ELSA
from golden import Case, assert_agrees
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@pytest.mark.parametrize("case", golden.cases("elsa_module"))
def test_official_numbers(case: Case, backend: Any) -> None:
    s = dict(case.settings)
    shape = (s.pop("batch"), s.pop("height"), s.pop("width"), s["dim"])
    del s["state_dict"]
    module = ELSA(**s).double().eval()
    module.load_state_dict(case.state_dict(), strict=True)
    module.to(backend.device)
    x = case.fill("input", shape).to(backend.device).requires_grad_()
    out = module(x)
    out.backward(case.fill("grad", out.shape).to(backend.device))
    assert_agrees("out", out, case.arrays["out"])
    assert_agrees("grad_input", x.grad, case.arrays["grad_input"])
    for name, parameter in module.named_parameters():
        assert_agrees(f"grad.{name}", parameter.grad, case.arrays[f"grad.{name}"])


SETTINGS = {
    "defaults": {},
    "swin": {"kernel_size": 7, "lam": 0, "qk_scale": 1, "group_width": 4, "qkv_bias": True},
    "k1": {"kernel_size": 1},
    "k11": {"kernel_size": 11},
    "heads_are_channels": {"num_heads": 12, "kernel_size": 3},
    "map_smaller_than_kernel": {"kernel_size": 9, "size": (2, 3)},
    "one_pixel": {"size": (1, 1)},
    "dilation3": {"kernel_size": 3, "dilation": 3},
    "stride3": {"kernel_size": 3, "stride": 3, "size": (7, 11)},
    "stride2_dilation2": {"kernel_size": 3, "stride": 2, "dilation": 2, "size": (8, 9)},
    "narrow_value": {"dim_v": 4},
    "wide_value": {"dim_v": 20, "num_heads": 5},
    "query_rounded_up": {"dim_qk": 9, "group_width": 4},
    "depthwise": {"group_width": 1, "dim_qk": 5},
    "groups": {"groups": 2, "dim_qk": 8, "num_heads": 4, "kernel_size": 3},
    "negative_scale": {"qk_scale": -2.5},
    "gamma_half": {"gamma": 0.5},
    "gamma_negative": {"gamma": -2, "lam": 0},
    "mul_only": {"gamma": 0},
    "neither": {"lam": 0, "gamma": 0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_formula(settings: dict[str, Any], backend: Any) -> None:
    settings = {"dim": 12, "num_heads": 2, **settings}
    size = settings.pop("size", (6, 7))
    module = ELSA(**settings, dtype=torch.float64)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    module.to(backend.device)
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    ours, theirs = x.to(backend.device).requires_grad_(), x.requires_grad_()

    formula = {key: s for key, s in settings.items() if key in ("lam", "gamma", "dilation", "stride", "groups")}
    head_dim = module.dim_v // settings["num_heads"]
    expected = restated.elsa(
        parameters,
        theirs,
        num_heads=settings["num_heads"],
        kernel_size=settings.get("kernel_size", 5),
        scale=settings.get("qk_scale", head_dim**-0.5),
        **formula,
    )
    out = module(ours)
    assert_agrees("out", out, expected.detach())
    grad = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(grad)
    out.backward(grad.to(backend.device))
    assert_agrees("grad of input", ours.grad, theirs.grad)
    for name, parameter in module.named_parameters():
        if settings.get("kernel_size") == 1 and name.startswith(("attn", "pre_proj.bias")):
            continue  # The softmax of one tap is 1: the gradient is rounding noise around 0.
        assert_agrees(f"grad of {name}", parameter.grad, parameters[name].grad)


@pytest.mark.parametrize(
    ("lam", "gamma", "shape"),
    [(1, 1, (2, 1, 12, 5, 5)), (0, 1, (1, 12, 5, 5)), (1, 0, (1, 12, 5, 5)), (0, 0, None), (0, 0.5, (1, 12, 5, 5))],
)
def test_official_state_dict(lam: int, gamma: float, shape: tuple[int, ...] | None) -> None:
    module = ELSA(12, 2, lam=lam, gamma=gamma)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    expected = {
        "pre_proj.weight": (28, 12, 1, 1),
        "attn.0.weight": (8, 8, 5, 5),
        "attn.0.bias": (8,),
        "attn.2.weight": (50, 8, 1, 1),
        "attn.2.bias": (50,),
        "post_proj.weight": (12, 12),
        "post_proj.bias": (12,),
    }
    assert shapes == (expected if shape is None else {"ghost_head": shape, **expected})


def test_official_arguments() -> None:
    defaults = {name: p.default for name, p in inspect.signature(ELSA).parameters.items()}
    assert list(defaults.items())[2:-2] == [
        ("dim_qk", None),
        ("dim_v", None),
        ("kernel_size", 5),
        ("stride", 1),
        ("dilation", 1),
        ("qkv_bias", False),
        ("qk_scale", None),
        ("attn_drop", 0.0),
        ("proj_drop", 0.0),
        ("group_width", 8),
        ("groups", 1),
        ("lam", 1),
        ("gamma", 1),
    ]
    with pytest.raises(TypeError, match="unexpected"):
        ELSA(12, 2, kernel=5)


@pytest.mark.parametrize(
    ("dim_qk", "group_width", "expected"),
    [(None, 4, 8), (None, 8, 8), (None, 3, 9), (9, 4, 12), (16, 8, 16), (1, 8, 8)],
)
def test_query_width(dim_qk: int | None, group_width: int, expected: int) -> None:
    """Two thirds of dim by default, and rounded up to whole groups."""
    module = ELSA(12, 2, dim_qk=dim_qk, group_width=group_width)
    assert module.dim_qk == expected
    assert module.attn[0].weight.shape == (expected, group_width, 5, 5)
    assert module.pre_proj.out_channels == 2 * expected + 12


def test_ghost_head_initialisation() -> None:
    mul, add = ELSA(256, 4, kernel_size=7).ghost_head.detach()
    assert abs(float(mul.std()) - 1) < 0.05
    assert abs(float(add.std()) - 0.02) < 0.001
    assert 0.045 < float(ELSA(256, 4, lam=0).ghost_head.detach().std() * 2.25) < 0.046
    assert abs(float(ELSA(256, 4, gamma=0).ghost_head.detach().std()) - 1) < 0.05


def test_no_hidden_copies(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value reach the ops as slices of one channels-last map, and the results stay channels-last."""
    seen: dict[str, Any] = {}

    def spy(op: str) -> Callable[..., Tensor]:
        def call(first: Tensor, second: Tensor, *rest: Any, **options: Any) -> Tensor:
            out = getattr(elsa_ext, op)(first, second, *rest, **options)
            seen[op] = first, second, out
            return out

        return call

    for op in ("hadamard_attention", "ghost_head"):
        monkeypatch.setattr(elsa_ext.nn.elsa, op, spy(op))
    module = ELSA(12, 2, dim_v=16, kernel_size=3).to(native.device)
    module.post_proj.register_forward_pre_hook(lambda _, args: seen.update(post_proj=args))
    module(torch.randn(2, 6, 7, 12, device=native.device))
    query, key, attn = seen["hadamard_attention"]
    value, attn_in, out = seen["ghost_head"]
    (projected,) = seen["post_proj"]
    wide = 8 + 8 + 16
    for tensor, channel in ((query, 0), (key, 8), (value, 16)):
        assert tensor.stride() == (6 * 7 * wide, 1, 7 * wide, wide)
        assert tensor.data_ptr() == query.data_ptr() + channel * tensor.element_size()
    assert attn_in.data_ptr() == attn.data_ptr()
    assert attn.is_contiguous(memory_format=torch.channels_last)
    assert projected.data_ptr() == out.data_ptr()
    assert projected.is_contiguous()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "ELSA: dim must be a positive integer, got 0"),
        ({"num_heads": -1}, "ELSA: num_heads must be a positive integer, got -1"),
        ({"dim": 2, "num_heads": 1}, "ELSA: dim_qk must be a positive integer, got 0"),
        ({"dim_v": 2.5}, "ELSA: dim_v must be a positive integer, got 2.5"),
        ({"kernel_size": 4}, "ELSA: kernel_size must be odd, got 4"),
        ({"kernel_size": (3, 3)}, r"ELSA: kernel_size must be a positive integer, got \(3, 3\)"),
        ({"stride": 0}, "ELSA: stride must be a positive integer, got 0"),
        ({"dilation": 0}, "ELSA: dilation must be a positive integer, got 0"),
        ({"group_width": 0}, "ELSA: group_width must be a positive integer, got 0"),
        ({"num_heads": 5}, "ELSA: num_heads must divide dim_v = 12, got 5"),
        ({"groups": 3}, "ELSA: groups must divide dim_qk = 8 and num_heads .* kernel_size² = 50, got 3"),
        ({"lam": 0.5}, "ELSA: lam must be 0 or 1, got 0.5"),
        ({"lam": float("nan")}, "ELSA: lam must be 0 or 1, got nan"),
        ({"gamma": float("inf")}, "ELSA: gamma must be finite, got inf"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ELSA(**{"dim": 12, "num_heads": 2, **changed})


@pytest.mark.parametrize("shape", [(2, 6, 12), (2, 12, 6, 7)])
def test_bad_input(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ELSA: the input must have shape \(B, H, W, 12\), got \[2, "):
        ELSA(12, 2)(torch.zeros(shape))


def test_copies_and_pickles() -> None:
    module = ELSA(12, 2)
    x = torch.randn(1, 5, 5, 12)
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(saved, weights_only=False)):
        assert torch.equal(twin(x), module(x))


def test_device_and_dtype() -> None:
    module = ELSA(12, 2, qkv_bias=True, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("meta", torch.bfloat16)}
    module.to_empty(device="cpu")
    nn.init.zeros_(module.ghost_head)
    module.reset_parameters()
    assert module.ghost_head.float().std() > 0.1


@pytest.mark.parametrize(("lam", "gamma"), [(0, 1), (1, 0), (1, 1), (0, 0)])
def test_memory_format(lam: int, gamma: float) -> None:
    module = ELSA(16, 2, lam=lam, gamma=gamma)
    x = torch.randn(2, 5, 6, 16)
    expected = module(x)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    module.to(memory_format=torch.channels_last)
    assert module.attn[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(parameter, before[name]) for name, parameter in module.named_parameters())
    assert torch.equal(module(x), expected)
    module.to(dtype=torch.float64, memory_format=torch.contiguous_format)
    assert all(parameter.is_contiguous() for parameter in module.parameters())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}


def test_empty_batch(unemulated: Any) -> None:
    module = ELSA(12, 2).to(unemulated.device)
    out = module(torch.zeros(0, 6, 7, 12, device=unemulated.device))
    assert out.shape == (0, 6, 7, 12)
    out.sum().backward()


@pytest.mark.parametrize("which", ["attn_drop", "proj_drop"])
def test_dropout(which: str) -> None:
    module = ELSA(12, 2, **{which: 0.5})
    x = torch.randn(1, 6, 7, 12)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    if which == "proj_drop":
        assert 0.2 < float((module.train()(x) == 0).float().mean()) < 0.8


def test_autocast(unemulated: Any) -> None:
    module = ELSA(12, 2).to(unemulated.device)
    x = torch.randn(2, 6, 7, 12, device=unemulated.device)
    with torch.autocast(unemulated.device, torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert module.ghost_head.grad.dtype == torch.float32
    assert torch.allclose(out.float(), module(x), atol=0.05)


@pytest.mark.thorough
def test_compiles_whole(unemulated_formula_slow: Any) -> None:
    module = ELSA(12, 2, lam=0, gamma=0.5).to(unemulated_formula_slow.device)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in (5, 8):
        x = torch.randn(2, size, size + 1, 12, device=unemulated_formula_slow.device)
        assert torch.allclose(compiled(x), module(x), atol=1e-6)


def test_gradient_checkpointing(unemulated: Any) -> None:
    module = ELSA(12, 2).to(unemulated.device)
    x = torch.randn(1, 6, 7, 12, device=unemulated.device, requires_grad=True)
    (plain,) = torch.autograd.grad(module(x).sum(), x)
    (again,) = torch.autograd.grad(checkpoint(module, x, use_reentrant=False).sum(), x)
    assert torch.equal(plain, again)


def test_training_keeps_one_attention_map(native: Any) -> None:
    module = ELSA(16, 2, kernel_size=3, group_width=4)
    x = torch.randn(2, 9, 8, 16, device=native.device, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module.to(native.device)(x)
    pixels = 2 * 9 * 8
    qkv, attn, value = pixels * (2 * module.dim_qk + 16), pixels * 2 * 9, pixels * 16
    parameters = [parameter.numel() for parameter in module.parameters()]
    maps = [size for size in kept.values() if size not in parameters]
    assert sorted(maps) == sorted([x.numel(), qkv, attn, value])


def test_repr_shows_settings() -> None:
    shown = repr(ELSA(12, 2, kernel_size=7, lam=0, gamma=0.5, dilation=2))
    assert "ELSA(\n  dim=12, num_heads=2, dim_qk=8, dim_v=12, kernel_size=7, stride=1, dilation=2, scale=" in shown
    assert "lam=0, gamma=0.5" in shown

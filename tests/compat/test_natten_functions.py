"""The functions of ``compat.natten``: golden numbers, NATTEN's rule, both generations' names, and no copies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import golden
import pytest
import torch
from compat.natten_rule import attend
from elsa_ext.compat import natten
from golden import Case, assert_agrees
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DOUBLE = {"dtype": torch.float64}
ORDERS = {
    "heads_first": lambda tensor: tensor,
    "heads_last": lambda tensor: tensor.movedim(1, -2).contiguous().movedim(-2, 1),
    "strange": lambda tensor: tensor.transpose(2, -1).contiguous().transpose(2, -1),
}


class Call(NamedTuple):
    """Tensors (B, heads, …, dim) and what goes with them, in natten's words."""

    query: Tensor
    key: Tensor
    value: Tensor
    rpb: Tensor | None
    options: dict[str, Any]
    scale: float

    @property
    def axes(self) -> int:
        return self.query.ndim - 3


def fused(call: Call) -> Tensor:
    """By na1d and na2d, whose tensors have heads last."""
    function = (natten.na1d, natten.na2d)[call.axes - 1]
    query, key, value = (tensor.movedim(1, -2) for tensor in (call.query, call.key, call.value))
    return function(query, key, value, rpb=call.rpb, scale=call.scale, **call.options).movedim(-2, 1)


def unfused(call: Call) -> Tensor:
    """By the functions of natten 0.17."""
    qk, av = ((natten.na1d_qk, natten.na1d_av), (natten.na2d_qk, natten.na2d_av))[call.axes - 1]
    attn = qk(call.query * call.scale, call.key, rpb=call.rpb, **call.options).softmax(-1)
    return av(attn, call.value, **call.options)


def of_015(call: Call) -> Tensor:
    """By those of 0.15, which take one number for both axes."""
    one, two = natten.na1d_qk_with_bias, natten.na2d_qk_with_bias
    return _positional(call, (one, two)[call.axes - 1], (natten.na1d_av, natten.na2d_av)[call.axes - 1])


def of_014(call: Call) -> Tensor:
    """By those of 0.14."""
    one, two = natten.natten1dqkrpb, natten.natten2dqkrpb
    return _positional(call, (one, two)[call.axes - 1], (natten.natten1dav, natten.natten2dav)[call.axes - 1])


def without_a_bias(call: Call) -> Tensor:
    """By those of 0.14 that take no bias."""
    qk = (natten.natten1dqk, natten.natten2dqk)[call.axes - 1]
    return _positional(
        call,
        lambda query, key, rpb, *sizes: qk(query, key, *sizes),
        (natten.natten1dav, natten.natten2dav)[call.axes - 1],
    )


def _positional(call: Call, qk: Callable[..., Tensor], av: Callable[..., Tensor]) -> Tensor:
    sizes = [call.options["kernel_size"], call.options["dilation"]]
    kernel_size, dilation = (size[0] for size in sizes)
    attn = qk(call.query * call.scale, call.key, call.rpb, kernel_size, dilation)
    return av(attn.softmax(-1), call.value, kernel_size, dilation)


def ways(options: dict[str, Any], has_bias: bool) -> list[Callable[[Call], Tensor]]:
    """The functions that can express a call."""
    found: list[Callable[[Call], Tensor]] = [fused]
    if "stride" not in options:
        found.append(unfused)
        if "is_causal" not in options and len(set(options["kernel_size"])) == len(set(options["dilation"])) == 1:
            found += [of_014, of_015, *([] if has_bias else [without_a_bias])]
    return found


def natten_options(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a golden case in natten's words; sequences are its maps of one row."""
    names = {"kernel_size": "kernel_size", "dilation": "dilation", "window_stride": "stride", "causal": "is_causal"}
    options = {name: tuple(given[ours]) for ours, name in names.items()}
    if given["height"] == 1:
        options = {name: size[1:] for name, size in options.items()}
    return {
        name: size
        for name, size in options.items()
        if name in ("kernel_size", "dilation") or any(int(one) != int(name == "stride") for one in size)
    }


def golden_calls() -> list[Any]:
    """Every golden case that natten has, with every function that can express it."""
    found = []
    for parameter in golden.cases("neighborhood"):
        (case,) = parameter.values
        if case is None:
            return [pytest.param(None, None, marks=parameter.marks, id=parameter.id)]
        if case.settings["border"] == "shift":
            has_bias = case.settings["bias"] is not None
            for way in ways(natten_options(case.settings), has_bias):
                found.append(pytest.param(case, way, id=f"{parameter.id}-{way.__name__}"))
    return found


@pytest.mark.parametrize(
    "order", ["heads_first", *(pytest.param(order, marks=pytest.mark.thorough) for order in ("heads_last", "strange"))]
)
@pytest.mark.parametrize(("case", "way"), golden_calls())
def test_golden_files(case: Case, way: Callable[[Call], Tensor], order: str, unemulated: Any) -> None:
    given = case.settings
    sequences = given["height"] == 1
    shape = (given["batch"], given["heads"], given["height"], given["width"], given["head_dim"])
    leaves = {}
    for name in ("query", "key", "value"):
        filled = case.fill(name, (*shape[:2], shape[4], *shape[2:4])).movedim(2, -1)
        leaves[name] = ORDERS[order](filled.squeeze(2) if sequences else filled).to(unemulated.device).requires_grad_()
    rpb = None
    if given["bias"] is not None:
        filled = case.fill("bias", (shape[1], *(2 * size - 1 for size in given["kernel_size"])))
        rpb = (filled.squeeze(1) if sequences else filled).to(unemulated.device).requires_grad_()
    out = way(Call(**leaves, rpb=rpb, options=natten_options(given), scale=given["scale"]))

    def as_golden(tensor: Tensor) -> Tensor:
        return (tensor.unsqueeze(2) if sequences else tensor).movedim(-1, 2)

    assert_agrees("out", as_golden(out), case.arrays["out"])
    as_golden(out).backward(case.fill("grad", case.arrays["out"].shape).to(out.device))
    for name, leaf in leaves.items():
        assert_agrees(f"gradient of {name}", as_golden(leaf.grad), case.arrays[f"grad_{name}"])
    if rpb is not None:
        assert_agrees("gradient of rpb", rpb.grad, case.arrays["grad_bias"].reshape(rpb.shape))


# Sizes, and kernel size, dilation, stride and causal of each axis.
RULE = {
    "k9": ((11, 12), [(9, 1, 1, False), (9, 1, 1, False)]),
    "k11": ((12, 15), [(11, 1, 1, False), (11, 1, 1, False)]),
    "k13_one_row_left": ((14, 13), [(13, 1, 1, False), (13, 1, 1, False)]),
    "tight": ((7, 7), [(7, 1, 1, False), (7, 1, 1, False)]),
    "tight_dilated": ((15, 10), [(5, 3, 1, False), (5, 2, 1, False)]),
    "uneven_residues": ((17, 13), [(5, 3, 1, False), (3, 4, 1, False)]),
    "even": ((9, 11), [(4, 1, 1, False), (6, 1, 1, False)]),
    "even_dilated": ((9, 13), [(4, 2, 1, False), (2, 3, 1, False)]),
    "causal": ((9, 8), [(5, 1, 1, True), (3, 1, 1, True)]),
    "causal_dilated": ((9, 11), [(3, 2, 1, True), (5, 2, 1, False)]),
    "stride": ((13, 12), [(5, 1, 2, False), (5, 1, 5, False)]),
    "stride_even": ((13, 12), [(6, 1, 3, False), (4, 2, 4, False)]),
    "causal_stride": ((13, 14), [(5, 1, 3, True), (4, 2, 2, True)]),
    "causal_stride_tight": ((6, 7), [(6, 1, 4, True), (7, 1, 7, False)]),
    "sequence": ((31,), [(7, 1, 1, False)]),
    "sequence_dilated": ((33,), [(5, 4, 1, False)]),
    "sequence_tight": ((28,), [(7, 4, 1, False)]),
    "sequence_even_causal_stride": ((29,), [(8, 2, 3, True)]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", RULE, ids=RULE)
def test_rule_of_natten(case: str, bias: bool) -> None:
    length, sizes = RULE[case]
    kernel_size, dilation, stride, causal = zip(*sizes, strict=True)
    options = {"kernel_size": kernel_size, "dilation": dilation}
    options |= {"stride": stride} if set(stride) != {1} else {}
    options |= {"is_causal": causal} if any(causal) else {}
    tensors = [torch.randn(2, 3, *length, 4, **DOUBLE).requires_grad_() for _ in range(3)]
    rpb = torch.randn(3, *(2 * size - 1 for size in kernel_size), **DOUBLE).requires_grad_() if bias else None
    leaves = [*tensors, *([rpb] if bias else [])]
    row = len(length) == 1
    _, expected = attend(
        *(tensor.unsqueeze(2) if row else tensor for tensor in tensors),
        None if rpb is None else rpb.unsqueeze(1) if row else rpb,
        [(1, 1, 1, False), *sizes] if row else sizes,
        0.3,
    )
    expected = expected.squeeze(2) if row else expected
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, leaves, grad)
    for way in ways(options, bias):
        out = way(Call(*tensors, rpb=rpb, options=options, scale=0.3))
        assert_agrees(way.__name__, out, expected.detach())
        for name, got, want in zip("qkvb", torch.autograd.grad(out, leaves, grad), wanted, strict=False):
            assert_agrees(f"{way.__name__}, gradient of {name}", got, want)


@pytest.mark.parametrize("way", [fused, unfused])
def test_heads_of_every_sample_have_their_bias(way: Callable[[Call], Tensor]) -> None:
    """Where heads are apart, each is a sample for the ops, and so has a bias of its own."""
    first, rpb = torch.randn(3, 2, 3, 5, 6, 4, **DOUBLE), torch.randn(3, 5, 5, **DOUBLE)
    _, expected = attend(*first, rpb, [(3, 1, 1, False)] * 2)
    for order in ORDERS.values():
        tensors = [order(tensor) for tensor in first]
        assert_agrees("out", way(Call(*tensors, rpb=rpb, options={"kernel_size": 3}, scale=1.0)), expected)


def test_logits_that_do_not_count_are_minus_infinity() -> None:
    query, key = torch.randn(2, 1, 2, 6, 7, 4, **DOUBLE)
    expected, _ = attend(query, key, key, None, [(3, 1, 1, True), (3, 1, 1, False)])
    logits = natten.na2d_qk(query, key, 3, is_causal=(True, False))
    assert torch.equal(logits.isinf(), expected.isinf()) and logits.isinf().any()


def test_defaults() -> None:
    query, key, value = torch.randn(3, 2, 6, 7, 3, 4, **DOUBLE)
    first = [tensor.movedim(-2, 1) for tensor in (query, key, value)]
    _, expected = attend(*first, None, [(3, 1, 1, False)] * 2, 0.5)
    assert_agrees("scale", natten.na2d(query, key, value, 3).movedim(-2, 1), expected)
    out = natten.na2d(query, key, value, 3, stride=None, dilation=None, is_causal=None, scale=0.0)
    assert_agrees("None for every default", out.movedim(-2, 1), expected)


def test_wider_values_and_shared_heads() -> None:
    query, key, value = (torch.randn(2, 6, 7, heads, dim, **DOUBLE) for heads, dim in ((4, 4), (2, 4), (2, 5)))
    out = natten.na2d(query, key, value, 3)
    assert out.shape == (2, 6, 7, 4, 5)
    repeated = [tensor.repeat_interleave(2, dim=3) for tensor in (key, value)]
    assert_agrees("out", out, natten.na2d(query, *repeated, 3))


def test_an_empty_batch() -> None:
    query, key, value = torch.zeros(3, 0, 2, 5, 6, 4)
    attn = natten.na2d_qk(query, key, 3)
    assert attn.shape == (0, 2, 5, 6, 9) and natten.na2d_av(attn, value, 3).shape == (0, 2, 5, 6, 4)
    assert natten.na2d(*(tensor.movedim(1, -2) for tensor in (query, key, value)), 3).shape == (0, 5, 6, 2, 4)


def test_attention_of_another_dtype_than_the_values() -> None:
    """As a softmax that computes in float32 leaves it."""
    attn, value = torch.rand(1, 2, 5, 6, 9), torch.randn(1, 2, 5, 6, 4, dtype=torch.bfloat16)
    assert natten.natten2dav(attn, value, 3, 1).dtype == torch.bfloat16


def test_meta_tensors() -> None:
    query, attn = torch.empty(2, 3, 6, 7, 4, device="meta"), torch.empty(2, 3, 6, 7, 9, device="meta")
    assert natten.na2d_qk(query, query, 3).shape == attn.shape and natten.na2d_av(attn, query, 3).shape == query.shape
    last = query.movedim(1, -2)
    assert natten.na2d(last, last, last, 3).shape == last.shape


class Spy(TorchDispatchMode):
    """Notes every op that is not a view, and the addresses of what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.calls.append((func.name(), [t.data_ptr() for t in args if isinstance(t, Tensor) and t.ndim > 3]))
        return func(*args, **(kwargs or {}))


def maps(order: str, count: int = 3) -> list[Tensor]:
    """Tensors (B, heads, H, W, dim): of one linear layer, or of a contiguous tensor each."""
    if order == "linear":
        return list(torch.randn(2, 6, 7, count, 3, 4).permute(3, 0, 4, 1, 2, 5))
    return [ORDERS[order](torch.randn(2, 3, 6, 7, 4)) for _ in range(count)]


@pytest.mark.parametrize("order", ["linear", "heads_first", "heads_last"])
def test_nothing_is_copied(order: str) -> None:
    query, key, value = maps(order)
    with Spy() as spy:
        natten.na2d(*(tensor.movedim(1, -2) for tensor in (query, key, value)), 3)
        natten.na2d_qk(query, key, 3)
    assert [(name, pointers) for name, pointers in spy.calls] == [
        ("elsa::neighborhood_attention", [tensor.data_ptr() for tensor in (query, key, value)]),
        ("elsa::neighborhood_logits", [tensor.data_ptr() for tensor in (query, key)]),
    ]


def test_what_is_copied_is_the_smaller() -> None:
    """A softmax leaves the heads apart, a linear layer the values of a pixel side by side."""
    attn, (value,) = torch.rand(2, 3, 6, 7, 9), maps("heads_last", 1)
    with Spy() as spy:
        natten.na2d_av(attn, value, 3)
    pointers = dict(spy.calls)["elsa::ghost_head"]
    assert attn.data_ptr() in pointers and value.data_ptr() not in pointers
    (value,) = maps("heads_first", 1)
    with Spy() as spy:
        natten.na2d_av(attn, value, 3)
    assert [name for name, _ in spy.calls] == ["elsa::ghost_head"]


THREE = torch.zeros(1, 5, 5, 1, 4)
ABSENT = {
    "na3d": (lambda: natten.na3d(THREE, THREE, THREE, 3), "na3d is not there, elsa_ext has no 3-D"),
    "qkrpb": (lambda: natten.natten3dqkrpb(1, 2, 3, 4), "natten3dqkrpb is not there, elsa_ext has no 3-D"),
    "module": (
        lambda: natten.NeighborhoodAttention3D(8, 2, 3),
        "NeighborhoodAttention3D is not there, elsa_ext has no 3-D",
    ),
    "attention": (
        lambda: natten.attention(1, 2, 3),
        "attention is not there, elsa_ext has no attention without a neighbourhood",
    ),
    "merge": (lambda: natten.merge_attentions([]), "merge_attentions is not there, elsa_ext has no log-sum-exp"),
    "keys": (
        lambda: natten.na2d(THREE, THREE, THREE, 3, additional_keys=THREE),
        "na2d has no additional_keys, got tensors",
    ),
    "keys_qk": (lambda: natten.na1d_qk(THREE[0], THREE[0], 3, 1, THREE), "na1d_qk has no additional_keys, got tensors"),
    "values": (
        lambda: natten.na2d_av(torch.zeros(1, 1, 5, 5, 9), THREE.movedim(3, 1), 3, additional_values=THREE),
        "na2d_av has no additional_values, got tensors",
    ),
    "backend": (lambda: natten.na2d(THREE, THREE, THREE, 3, backend="flex-fna"), "na2d has no backend, got 'flex-fna'"),
    "lse": (lambda: natten.na2d(THREE, THREE, THREE, 3, return_lse=True), "na2d has no return_lse, got True"),
}


@pytest.mark.parametrize(("call", "message"), ABSENT.values(), ids=ABSENT)
def test_what_is_not_there(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(NotImplementedError) as caught:
        call()
    assert str(caught.value) == f"elsa_ext.compat.natten: {message}"


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2, 5, 4), torch.zeros(2, 6, 4)])
    with pytest.raises(NotImplementedError, match=r"elsa_ext\.compat\.natten: na1d_qk takes no nested tensors"):
        natten.na1d_qk(nested, nested, 3)


def test_arguments_that_are_not_known() -> None:
    with pytest.raises(TypeError, match=r"na2d takes what follows kernel_size by name: it is dilation in natten 0\.17"):
        natten.na2d(THREE, THREE, THREE, 3, 1)
    with pytest.raises(TypeError, match="na2d has no argument strides"):
        natten.na2d(THREE, THREE, THREE, 3, strides=1)
    natten.na2d(THREE, THREE, THREE, 3, q_tile_shape=(8, 8), torch_compile=True, backward_kv_splits=None)


@pytest.mark.parametrize("way", [fused, unfused])
@pytest.mark.parametrize(("dtype", "of_rpb"), [("float32", "float64"), ("float64", "float32"), ("float32", "bfloat16")])
def test_bias_of_another_dtype(way: Callable[[Call], Tensor], dtype: str, of_rpb: str) -> None:
    tensors = torch.randn(3, 1, 2, 5, 6, 4, dtype=getattr(torch, dtype))
    rpb = torch.randn(2, 5, 5, dtype=getattr(torch, of_rpb), requires_grad=True)
    out = way(Call(*tensors, rpb=rpb, options={"kernel_size": 3}, scale=0.5))
    same = way(Call(*tensors, rpb=rpb.detach().to(tensors.dtype), options={"kernel_size": 3}, scale=0.5))
    assert torch.equal(out, same)
    out.sum().backward()
    assert rpb.grad.dtype == rpb.dtype and rpb.grad.any()


def test_what_does_not_fit_is_an_error_as_in_natten() -> None:
    with pytest.raises(RuntimeError, match=r"neighborhood_logits: border .shift. needs .* got height 5"):
        natten.natten2dqk(torch.zeros(1, 2, 5, 9, 4), torch.zeros(1, 2, 5, 9, 4), 7, 1)

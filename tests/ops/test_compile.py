"""torch.compile and torch.export: the whole graph, dynamic shapes, forward and backward."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import elsa_ext
import pytest
import torch
from ops.backends import HARDWARE, TORCH, Backend
from ops.cases import Case, make, make_grad
from ops.checks import call, registered
from ops.registry import OPS
from ops.spec import Op
from torch import Tensor
from torch.export import Dim

# What torch's own compilers say of torch: that TorchScript is deprecated (people still serve from it), that a buffer
# which export loads is read-only, that a pytree function is to be called otherwise.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in ("`torch.jit", "The given buffer is not writable", "`isinstance.treespec, LeafSpec")
]

# No two sizes of a call are equal by chance: the compiler would take them for one.
SIZES = (
    {"batch": 2, "height": 14, "width": 22},
    {"batch": 3, "height": 13, "width": 31},
    {"batch": 6, "height": 9, "width": 24},
)


def sized(op: Op) -> list[Case]:
    """The calls of ``op`` that compile, of the first of these sizes."""
    return [replace(case, **SIZES[0]) for case in op.compiled]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Assert that results of one case agree to rounding."""
    for name, result in actual.items():
        torch.testing.assert_close(result, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("hardware", "case", "layout"),
    [
        (backend, *row)
        for backend in HARDWARE
        for op in OPS
        for row in zip(sized(op), cycle(["channels_last", "contiguous"]), strict=False)
    ],
    ids=str,
    indirect=["hardware"],
)
def test_compile_once_for_every_size(hardware: Backend, case: Case, layout: str) -> None:
    assert_compiles_once(hardware, case, layout)


@pytest.mark.slow
@pytest.mark.parametrize("case", [sized(op)[0] for op in OPS], ids=str)
@pytest.mark.parametrize("unemulated", [TORCH], ids=str, indirect=True)
def test_the_formula_compiles_for_every_size(unemulated: Backend, case: Case) -> None:
    assert_compiles_once(unemulated, case, "channels_last")


def assert_compiles_once(backend: Backend, case: Case, layout: str) -> None:
    """Assert that one compilation of ``case``, with work around it, serves all sizes."""
    names = case.given

    def eager(*given: Tensor) -> Tensor:
        # Work around the op gives the compiler something to fuse with it and to get wrong about strides.
        doubled = {name: 2 * tensor for name, tensor in zip(names, given, strict=True)}
        return call(case, {**dict.fromkeys(case.shapes), **doubled}).sin()

    # What the code generator makes of the formula is not ours to test, and takes minutes.
    native = backend.implementation == "native"
    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend="inductor" if native else "aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=native):
        for sizes in SIZES:
            call_of_size = replace(case, **sizes)
            tensors = make(call_of_size, device=backend.device, layouts=case.laid_out(layout))
            leaves = [t.requires_grad_() for t in tensors.values() if t is not None]
            grad = make_grad(call_of_size, device=backend.device)
            results = []
            for function in (compiled, eager):
                out = function(*leaves)
                grads = torch.autograd.grad(out, leaves, grad)
                results.append({"out": out, **dict(zip(names, grads, strict=True))})
            assert_same(*results)


@pytest.mark.parametrize("op", OPS, ids=str)
def test_every_op_exports_with_dynamic_sizes(op: Op, tmp_path: Path) -> None:
    case = replace(op.compiled[0], **SIZES[0])
    maps = {name: {0: Dim("batch"), 2: Dim("height", min=8), 3: Dim("width", min=8)} for name in case.images}
    tensors = make(case)

    class Call(torch.nn.Module):
        def forward(self, images: dict[str, Tensor]) -> Tensor:
            return call(case, {**tensors, **images})

    program = torch.export.export(Call(), ({name: tensors[name] for name in maps},), dynamic_shapes=(maps,))
    assert registered(case) in [node.target for node in program.graph.nodes]
    torch.export.save(program, tmp_path / "call.pt2")
    loaded = torch.export.load(tmp_path / "call.pt2").module()
    for sizes in SIZES:
        given = make(replace(case, **sizes))
        images = {name: given[name] for name in maps}
        torch.testing.assert_close(loaded(images), call(case, {**tensors, **images}))


class Attention(torch.nn.Module):
    """Both ops in a row, as ELSA has them."""

    def __init__(self, channels: int, heads: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.heads, self.kernel_size, self.stride = heads, kernel_size, stride
        taps = (kernel_size, kernel_size)
        self.conv = torch.nn.Conv2d(channels, channels, kernel_size, groups=channels // 4)
        self.proj = torch.nn.Conv2d(channels, heads * kernel_size**2, 1)
        self.ghost_mul = torch.nn.Parameter(torch.randn(channels, *taps))
        self.ghost_add = torch.nn.Parameter(torch.randn(channels, *taps))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Hadamard attention, then the ghost head."""
        parameters = (self.conv.weight, self.conv.bias, self.proj.weight, self.proj.bias)
        attn = elsa_ext.hadamard_attention(query, key, *parameters, heads=self.heads, stride=self.stride)
        options = {"kernel_size": self.kernel_size, "stride": self.stride}
        return elsa_ext.ghost_head(value, attn, self.ghost_mul, self.ghost_add, **options)


def images(batch: int, height: int, width: int, device: str) -> tuple[Tensor, ...]:
    """Query, key and value."""
    return tuple(torch.randn(3, batch, 8, height, width, device=device).unbind())


@pytest.mark.parametrize("stride", [1, 2])
def test_export_with_dynamic_batch_and_size(hardware: Backend, stride: int, tmp_path: Path) -> None:
    check_export(hardware, stride, tmp_path)


def test_export_of_the_formula(tmp_path: Path) -> None:
    with elsa_ext.use_backend("torch"):
        check_export(TORCH, 1, tmp_path)


def check_export(backend: Backend, stride: int, tmp_path: Path) -> None:
    """Export with dynamic sizes, save, load, and compare at other sizes."""
    model = Attention(channels=8, heads=2, kernel_size=3, stride=stride).to(backend.device)
    sizes = {0: Dim("batch"), 2: Dim("height", min=4), 3: Dim("width", min=4)}
    program = torch.export.export(model, images(2, 6, 7, backend.device), dynamic_shapes=(sizes, sizes, sizes))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for batch, height, width in ((2, 6, 7), (5, 9, 4), (3, 13, 16)):
        given = images(batch, height, width, backend.device)
        torch.testing.assert_close(loaded(*given), model(*given))


def test_exported_graph_holds_the_ops(hardware: Backend) -> None:
    model = Attention(channels=8, heads=2, kernel_size=3, stride=1).to(hardware.device)
    program = torch.export.export(model, images(2, 6, 7, hardware.device)).run_decompositions()
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.elsa.hadamard_attention.default in called
    assert torch.ops.elsa.ghost_head.default in called
    assert torch.ops.aten.convolution.default not in called


def test_compiled_training_step(hardware: Backend) -> None:
    """Both ops in one graph: the same loss and the same gradients as in eager mode."""
    model = Attention(channels=8, heads=2, kernel_size=3, stride=1).to(hardware.device)
    given = images(2, 6, 7, hardware.device)
    gradients = []
    for function in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        function(*given).square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert_same(*gradients)


@pytest.mark.parametrize("case", [case for op in OPS for case in sized(op)], ids=str)
def test_compiled_under_autocast(hardware: Backend, case: Case) -> None:
    names = case.given

    def eager(*given: Tensor) -> Tensor:
        with torch.autocast(hardware.device, torch.bfloat16):
            return call(case, {**dict.fromkeys(case.shapes), **dict(zip(names, given, strict=True))})

    leaves = [t.requires_grad_() for t in make(case, torch.float32, hardware.device).values() if t is not None]
    grad = make_grad(case, torch.bfloat16, hardware.device)
    results = []
    for function in (torch.compile(eager, fullgraph=True, backend="aot_eager"), eager):
        out = function(*leaves)
        assert out.dtype == torch.bfloat16
        grads = torch.autograd.grad(out, leaves, grad)
        results.append({"out": out, **dict(zip(names, grads, strict=True))})
    assert_same(*results)

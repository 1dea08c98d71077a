"""torch.compile, torch.export and TorchScript: the whole graph, dynamic shapes, forward and backward."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import elsa_ext
import pytest
import torch
from ops.backends import TORCH, Backend
from ops.cases import Case, GhostHead, HadamardAttention, channels_last, make, make_grad
from ops.checks import call
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
CASES = [
    GhostHead(**SIZES[0], channels=8, kernel_size=5),
    GhostHead(**SIZES[0], channels=8, stride=2, dilation=2, mul="none", add="sample"),
    HadamardAttention(**SIZES[0], channels=8, kernel_size=5),
    HadamardAttention(**SIZES[0], channels=8, stride=2, proj_groups=2, conv_bias=False),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Assert that results of one case agree to rounding."""
    for name, result in actual.items():
        torch.testing.assert_close(result, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    ("case", "layout"),
    [*zip(CASES, ["channels_last", "contiguous", "contiguous", "channels_last"], strict=True)],
    ids=str,
)
def test_compile_once_for_every_size(backend: Backend, case: Case, layout: str) -> None:
    names = [name for name, shape in case.shapes.items() if shape is not None]

    def eager(*given: Tensor) -> Tensor:
        # Work around the op gives the compiler something to fuse with it and to get wrong about strides.
        doubled = {name: 2 * tensor for name, tensor in zip(names, given, strict=True)}
        return call(case, {**dict.fromkeys(case.shapes), **doubled}).sin()

    # What the code generator makes of the formula is not ours to test, and takes minutes.
    native = backend.implementation == "native"
    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend="inductor" if native else "aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=native):
        for sizes in SIZES:
            sized = replace(case, **sizes)
            tensors = make(sized, device=backend.device, layouts=channels_last(case) if case.stride == 1 else {})
            leaves = [t.requires_grad_() for t in tensors.values() if t is not None]
            grad = make_grad(sized, device=backend.device)
            results = []
            for function in (compiled, eager):
                out = function(*leaves)
                grads = torch.autograd.grad(out, leaves, grad)
                results.append({"out": out, **dict(zip(names, grads, strict=True))})
            assert_same(*results)


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
def test_export_with_dynamic_batch_and_size(native: Backend, stride: int, tmp_path: Path) -> None:
    check_export(native, stride, tmp_path)


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


def test_exported_graph_holds_the_ops(native: Backend) -> None:
    model = Attention(channels=8, heads=2, kernel_size=3, stride=1).to(native.device)
    program = torch.export.export(model, images(2, 6, 7, native.device)).run_decompositions()
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.elsa.hadamard_attention.default in called
    assert torch.ops.elsa.ghost_head.default in called
    assert torch.ops.aten.convolution.default not in called


def test_compiled_training_step(native: Backend) -> None:
    """Both ops in one graph: the same loss and the same gradients as in eager mode."""
    model = Attention(channels=8, heads=2, kernel_size=3, stride=1).to(native.device)
    given = images(2, 6, 7, native.device)
    gradients = []
    for function in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        function(*given).square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert_same(*gradients)


def script() -> torch.jit.ScriptFunction:
    """A scripted function that calls both ops by their registered names."""

    def attend(
        query: Tensor,
        key: Tensor,
        conv_weight: Tensor,
        proj_weight: Tensor,
        value: Tensor,
        ghost_mul: Tensor | None,
        ghost_add: Tensor | None,
    ) -> Tensor:
        attn = torch.ops.elsa.hadamard_attention(query, key, conv_weight, None, proj_weight, None, heads=2, scale=0.5)
        return torch.ops.elsa.ghost_head(value, attn, ghost_mul, ghost_add, kernel_size=3)

    return torch.jit.script(attend)


def script_inputs(device: str, ghost_mul: bool = True) -> list[Tensor | None]:
    """The arguments of the scripted function."""
    query, key, value = images(2, 6, 7, device)
    weights = torch.randn(8, 4, 3, 3, device=device), torch.randn(18, 8, device=device)
    mul, add = torch.randn(2, 8, 3, 3, device=device)
    return [query, key, *weights, value, mul if ghost_mul else None, add]


@pytest.mark.parametrize("ghost_mul", [True, False])
def test_script_saved_and_loaded(native: Backend, ghost_mul: bool) -> None:
    buffer = BytesIO()
    torch.jit.save(script(), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    given = script_inputs(native.device, ghost_mul)
    leaves = [None if t is None else t.requires_grad_() for t in given]
    query, key, conv_weight, proj_weight, value, mul, add = leaves
    attn = elsa_ext.hadamard_attention(query, key, conv_weight, None, proj_weight, None, heads=2, scale=0.5)
    expected = elsa_ext.ghost_head(value, attn, mul, add, kernel_size=3)
    wanted = [leaf for leaf in leaves if leaf is not None]
    expected_grads = torch.autograd.grad(expected.square().sum(), wanted)
    for _ in range(3):  # the first runs profile, the last runs the optimised graph
        out = loaded(*leaves)
        torch.testing.assert_close(out, expected, rtol=0, atol=0)
        grads = torch.autograd.grad(out.square().sum(), wanted)
        for got, want in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


CHILD = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
given, expected = torch.load(sys.argv[3])
out = torch.jit.load(sys.argv[2])(*given)
assert torch.equal(out, expected), (out - expected).abs().max()
assert not [name for name in sys.modules if name.startswith("elsa_ext")]
"""


def test_script_runs_without_the_python_package(tmp_path: Path) -> None:
    """A server needs torch and libelsa_cpu.so, nothing else."""
    libraries = [library for folder in elsa_ext.__path__ for library in Path(folder).rglob("libelsa_cpu.*")]
    assert len(libraries) == 1, libraries
    attend, given = script(), script_inputs("cpu")
    torch.jit.save(attend, str(tmp_path / "script.pt"))
    torch.save((given, attend(*given)), tmp_path / "tensors.pt")
    paths = [str(libraries[0]), str(tmp_path / "script.pt"), str(tmp_path / "tensors.pt")]
    ignore = "ignore:`torch.jit"
    command = [sys.executable, "-W", "error", "-W", ignore, "-c", CHILD, *paths]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiled_under_autocast(native: Backend, case: Case) -> None:
    names = [name for name, shape in case.shapes.items() if shape is not None]

    def eager(*given: Tensor) -> Tensor:
        with torch.autocast(native.device, torch.bfloat16):
            return call(case, {**dict.fromkeys(case.shapes), **dict(zip(names, given, strict=True))})

    leaves = [t.requires_grad_() for t in make(case, torch.float32, native.device).values() if t is not None]
    grad = make_grad(case, torch.bfloat16, native.device)
    results = []
    for function in (torch.compile(eager, fullgraph=True, backend="aot_eager"), eager):
        out = function(*leaves)
        assert out.dtype == torch.bfloat16
        grads = torch.autograd.grad(out, leaves, grad)
        results.append({"out": out, **dict(zip(names, grads, strict=True))})
    assert_same(*results)

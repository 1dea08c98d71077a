"""TorchScript: every op by its registered name, saved, loaded, and served without the Python package."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import elsa_ext
import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, make
from ops.checks import call
from ops.registry import every
from torch import Tensor

# torch says that TorchScript is deprecated; people still serve from it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


def script(case: Case) -> torch.jit.ScriptFunction:
    """A scripted function of the tensors of ``case`` that calls its op."""
    kinds = [f"{name}: {'Tensor' if name in case.given else 'Optional[Tensor]'}" for name in case.shapes]
    options = [f"{name}={value!r}" for name, value in case.options.items()]
    source = f"""
def run({", ".join(kinds)}):
    return torch.ops.elsa.{case.op}({", ".join([*case.shapes, *options])})
"""
    return torch.jit.CompilationUnit(source).run


@pytest.mark.parametrize("case", every("options"), ids=str)
def test_saved_and_loaded(hardware: Backend, case: Case) -> None:
    buffer = BytesIO()
    torch.jit.save(script(case), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    leaves = {name: None if t is None else t.requires_grad_() for name, t in make(case, device=hardware.device).items()}
    given = [leaves[name] for name in case.given]
    expected = call(case, leaves)
    expected_grads = torch.autograd.grad(expected.square().sum(), given)
    for _ in range(3):  # the first runs profile, the last runs the optimised graph
        out = loaded(*leaves.values())
        torch.testing.assert_close(out, expected, rtol=0, atol=0)
        for got, want in zip(torch.autograd.grad(out.square().sum(), given), expected_grads, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


CHILD = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
for number in range(int(sys.argv[3])):
    given, expected = torch.load(f"{sys.argv[2]}/{number}.tensors")
    out = torch.jit.load(f"{sys.argv[2]}/{number}.script")(*given)
    assert torch.equal(out, expected), (out - expected).abs().max()
assert not [name for name in sys.modules if name.startswith("elsa_ext")]
"""


def test_scripts_run_without_the_python_package(tmp_path: Path) -> None:
    """A server needs torch and libelsa_cpu.so, nothing else."""
    libraries = [library for folder in elsa_ext.__path__ for library in Path(folder).rglob("libelsa_cpu.*")]
    assert len(libraries) == 1, libraries
    cases = every("options")
    for number, case in enumerate(cases):
        given: list[Tensor | None] = list(make(case).values())
        scripted = script(case)
        torch.jit.save(scripted, str(tmp_path / f"{number}.script"))
        torch.save((given, scripted(*given)), tmp_path / f"{number}.tensors")
    arguments = [str(libraries[0]), str(tmp_path), str(len(cases))]
    command = [sys.executable, "-W", "error", "-W", "ignore:`torch.jit", "-c", CHILD, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr

"""The package works wherever people import it: odd folders, without docstrings, in forked workers, in threads."""

import shutil
import subprocess
import sys
from pathlib import Path

import elsa_ext
import pytest
import torch
from elsa_ext._library import CPU_LIBRARY
from torch.utils.data import DataLoader, Dataset

OPS = """
import elsa_ext, torch
value, attn = torch.ones(1, 4, 5, 5, requires_grad=True), torch.ones(1, 9, 5, 5)
elsa_ext.ghost_head(value, attn, kernel_size=3).sum().backward()
assert value.grad[0, 0].tolist()[2] == [6, 9, 9, 9, 6]
layer = elsa_ext.nn.ELSA(8, 2)
assert layer(torch.randn(1, 9, 9, 8)).shape == (1, 9, 9, 8)
"""


def run(*command: str) -> str:
    """Return what a program writes, once it has ended well."""
    process = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A copy of the package in a folder whose name has a space and letters beyond ASCII."""
    folder = tmp_path / "ünter größe 中"
    shutil.copytree(Path(elsa_ext.__file__).parent, folder / "elsa_ext", ignore=shutil.ignore_patterns("__pycache__"))
    for library in CPU_LIBRARY.parent.iterdir():
        if library.suffix == ".so" and not (folder / "elsa_ext" / library.name).exists():
            shutil.copy(library, folder / "elsa_ext")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("optimisation", [[], ["-OO"]], ids=["", "OO"])
def test_a_folder_of_any_name(odd_folder: Path, optimisation: list[str]) -> None:
    # Without site: what is installed editable would be imported first.
    first = f"import sys; sys.path[:0] = {[str(odd_folder), str(Path(torch.__file__).parents[1])]}"
    said = run(*optimisation, "-S", "-c", f"{first}{OPS}\nprint(elsa_ext.build_info()['library'])")
    assert Path(said.strip()).parent == odd_folder / "elsa_ext"


HELP = """
from contextlib import suppress
from elsa_ext.cli import main
for command in ("train", "evaluate", "classify", "attend", "compare", "bench", "export", "info"):
    with suppress(SystemExit):
        main([command, "--help"])
"""


@pytest.mark.thorough
def test_help_without_docstrings() -> None:
    assert run("-OO", "-c", HELP).count("\nusage: elsa-ext ") == 7


@pytest.mark.thorough
@pytest.mark.parametrize("order", ["import torch, elsa_ext", "import elsa_ext, torch"])
def test_before_torch_and_after(order: str) -> None:
    assert run("-c", f"{order}\nprint(torch.ops.elsa.ghost_head)").strip() == "elsa.ghost_head"


class Filtered(Dataset):
    """Images that a worker of a DataLoader filters."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        value = torch.full((1, 32, 56, 56), float(index))
        return elsa_ext.ghost_head(value, torch.ones(1, 49, 56, 56), kernel_size=7)[0, 0, 28, 28]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_forked_workers() -> None:
    """The parent has run the ops, and with them its OpenMP threads, which do not exist in a child."""
    expected = [Filtered()[index].item() for index in range(4)]
    loader = DataLoader(Filtered(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert torch.cat(list(loader)).tolist() == expected == [0.0, 49.0, 98.0, 147.0]


THREADS = f"""
import sys, threading
import torch
is_gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
before = is_gil_enabled()
{OPS}
import elsa_ext._C
assert is_gil_enabled() == before, "elsa_ext switched the GIL on"

value, attn = torch.randn(2, 16, 20, 20), torch.rand(2, 49, 20, 20)
expected = elsa_ext.ghost_head(value, attn, kernel_size=7)
wrong = []

def call():
    for _ in range(50):
        leaf = value.clone().requires_grad_()
        out = elsa_ext.ghost_head(leaf, attn, kernel_size=7)
        out.sum().backward()
        if not torch.equal(out.detach(), expected) or leaf.grad is None:
            wrong.append(threading.current_thread().name)
        with elsa_ext.use_backend("torch"):
            elsa_ext.ghost_head(leaf, attn, kernel_size=7)

threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""


@pytest.mark.thorough
def test_threads() -> None:
    """Of a Python without a GIL as well: importing the package does not switch it on."""
    run("-c", THREADS)


COUNTS = """
import sys
{first}
import elsa_ext, torch
assert ("torch.utils.flop_counter" in sys.modules) == {early}
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    elsa_ext.ghost_head(torch.ones(1, 4, 5, 5), torch.ones(1, 9, 5, 5), kernel_size=3)
print(counter.get_total_flops())
"""


@pytest.mark.thorough
@pytest.mark.parametrize("first", ["", "import torch.utils.flop_counter"], ids=["later", "before"])
def test_flops_are_counted_whenever_the_counter_is_imported(first: str) -> None:
    """It imports triton, which costs half of the time that the package does, and switches the GIL on."""
    assert run("-W", "ignore::RuntimeWarning", "-c", COUNTS.format(first=first, early=bool(first))) == "1800\n"

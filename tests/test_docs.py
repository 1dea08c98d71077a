"""The Python on the pages runs as it is written, and calls nothing that is private."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import elsa_ext
import pytest

ROOT = Path(__file__).parents[1]
# Those of the other pages, which build whole models, are for `make test-all`.
BLOCKS = [
    pytest.param(code, id=f"{page}-{number}", marks=[] if page == "README.md" else [pytest.mark.slow])
    for page in (
        "README.md",
        "docs/models.md",
        "docs/natten.md",
        "docs/family.md",
        "docs/detection.md",
        "docs/trainers.md",
    )
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL))
]

SOURCES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.py")} | {
    f"{path.name}-{number}": code
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
}
PUBLIC = {
    "elsa_ext",
    "elsa_ext.compat",
    "elsa_ext.models",
    "elsa_ext.models.detection",
    "elsa_ext.nn",
    "elsa_ext.ops",
}


def imported(code: str) -> Iterator[str]:
    """Every module, and every name of a module, that ``code`` imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_private_is_imported(name: str) -> None:
    for full in imported(SOURCES[name]):
        assert not any(part.startswith("_") for part in full.split(".") if part != "__future__"), full
        assert full.split(".")[0] != "elsa_ext" or full in PUBLIC or full.rpartition(".")[0] in PUBLIC, full


@pytest.mark.thorough
@pytest.mark.parametrize("code", BLOCKS)
def test_block(code: str, tmp_path: Path) -> None:
    for package in ("lightning", "transformers"):
        if package in imported(code):
            pytest.importorskip(package)
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_citation_is_of_this_version() -> None:
    version = elsa_ext.__version__.partition("+")[0]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_files_that_the_architecture_names() -> None:
    """Of every op where they are named for one."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    ops = [folder.name for folder in (ROOT / "src" / "ops").iterdir()]
    paths = re.findall(r"`((?:src|include|python|tests|cmake|docs)/[\w./<>*-]+)`", page)
    assert len(paths) > 10
    for path in paths:
        for op in ops if "<op>" in path else [""]:
            assert (ROOT / path.replace("<op>", op)).exists(), path


def test_coefficients_of_the_kernels_are_those_of_the_fit() -> None:
    script = ROOT / "benchmarks" / "fit_coefficients.py"
    # Two threads that spin take minutes for its small matrices where another test has the second core.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr

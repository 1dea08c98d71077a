"""What is on the pages runs as it is written, is there, and is all that is public."""

import ast
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import elsa_ext
import elsa_ext.models.detection
import pytest
import torch
from elsa_ext.cli.parser import build_parser
from torchvision.models.detection import FasterRCNN

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}


def blocks(language: str) -> dict[str, str]:
    """Every block of a language on any page, by page and number."""
    return {
        f"{page}-{number}": block
        for page, text in PAGES.items()
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
    }


PYTHON, SHELL = blocks("python"), blocks("sh")

# Of this page each block needs the files that those before it have written.
IN_ORDER = "docs/deployment.md"
# What writes the files that a block reads.
FILES = {
    "docs/commands.md-0": (
        "import shutil, torch, elsa_ext\n"
        "shutil.copy(elsa_ext.build_info()['library'], '.')\n"
        "extra = {'classes': '[]', 'mean': '[]', 'std': '[]'}\n"
        "torch.jit.script(torch.nn.GELU()).save('flowers.ts', _extra_files=extra)\n"
    ),
    "docs/training.md-0": "import torch\ntorch.save({'classes': ['rose'], 'sha256': ''}, 'checkpoint.pt')\n",
}
# What makes the names that a block takes from the text around it.
BEFORE = {
    "docs/segmentation.md-1": (
        "import elsa_ext.models, timm, segmentation_models_pytorch as smp\n"
        "classifier = timm.create_model('elsa_swin_tiny')\n"
        "model = smp.create_model('fpn', encoder_name='tu-elsa_swin_tiny', encoder_weights=None)\n"
    ),
}
# What the test environment may not have; each page says how to install it.
OPTIONAL = ("lightning", "segmentation_models_pytorch", "torchao", "torchvision", "transformers")

SOURCES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.py") if path.name != "conf.py"} | PYTHON
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


def run_python(code: str, folder: Path) -> None:
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def runnable() -> Iterator[object]:
    for name in PYTHON:
        if not name.startswith(IN_ORDER):
            # Those that somebody tries first; the rest is for `make test-all`.
            first = name.startswith(("README.md", "docs/index.md", "docs/ops.md"))
            yield pytest.param(name, marks=pytest.mark.thorough if first else pytest.mark.slow, id=name)


@pytest.mark.parametrize("name", list(runnable()))
def test_block(name: str, tmp_path: Path) -> None:
    code = BEFORE.get(name, "") + PYTHON[name]
    for package in {full.split(".")[0] for full in imported(code)}.intersection(OPTIONAL):
        pytest.importorskip(package)
    if name in FILES:
        run_python(FILES[name], tmp_path)
    run_python(code, tmp_path)


@pytest.mark.slow
def test_blocks_in_order(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for name, code in PYTHON.items():
        if name.startswith(IN_ORDER):
            run_python(code, tmp_path)


# The command line


def commands(block: str) -> Iterator[list[str]]:
    """The words of every command in a block, without comments and what stands before a pipe or after a redirection."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((place for place, word in enumerate(words) if word in ("|", "&&", ";")), len(words))
            command, words = words[:end], words[end + 1 :]
            if ">" in command:
                command = command[: command.index(">")]
            if command:
                yield command


COMMANDS = {f"{name}: {shlex.join(words)}": words for name, block in SHELL.items() for words in commands(block)}
INLINE = [
    (page, shlex.split(code)) for page, text in PAGES.items() for code in re.findall(r"`(elsa-ext [^`…:]*)`", text)
]


def of_elsa(words: list[str]) -> list[str] | None:
    """The arguments of ``elsa-ext`` in a command, behind what starts it."""
    if "elsa-ext" in words and not any(word in ("clone", "pip", "find", "source") for word in words):
        return words[words.index("elsa-ext") + 1 :]
    return words[3:] if words[1:3] == ["-m", "elsa_ext"] else None


@pytest.mark.parametrize("name", [name for name, words in COMMANDS.items() if of_elsa(words)])
def test_arguments_of_the_command_line(name: str) -> None:
    """The parser takes them; it looks for no file."""
    build_parser().parse_args(of_elsa(COMMANDS[name]))


@pytest.mark.parametrize(("page", "words"), INLINE)
def test_options_of_the_command_line(page: str, words: list[str]) -> None:
    """A command inside of a sentence may leave arguments out, but names no command or option that is not there."""
    parser = build_parser()
    known = parser._subparsers._group_actions[0].choices
    command = words[1] if len(words) > 1 and not words[1].startswith("-") else None
    assert command is None or command in known, page
    help_text = parser.format_help() if command is None else deepest(known[command], words[2:]).format_help()
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.partition('=')[0])}\b", help_text), (page, word)


def deepest(parser: object, words: list[str]) -> object:
    """The parser of ``bench op`` and its like."""
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        if words and words[0] in action.choices:
            return action.choices[words[0]]
    return parser


RUN = ("info", "completion")  # those that take no time and need no file


@pytest.mark.thorough
@pytest.mark.parametrize("words", [words for words in map(of_elsa, COMMANDS.values()) if words and words[0] in RUN])
def test_command(words: list[str], tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-m", "elsa_ext", *words], cwd=tmp_path, capture_output=True, check=False)
    assert process.returncode == 0, process.stderr


def test_targets_of_make() -> None:
    there = set(re.findall(r"^([\w-]+)(?: [\w-]+)*:(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    there |= set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[0].split())
    named = {word for words in COMMANDS.values() if words[0] == "make" for word in words[1:2] if "=" not in word}
    named |= {word for text in PAGES.values() for word in re.findall(r"`make ([a-z-]+)[` ]", text)}
    assert named >= {"test", "docs", "wheel"}
    assert named <= there


def test_extras_that_are_installed() -> None:
    there = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))
    named = {
        extra
        for text in PAGES.values()
        for found in re.findall(r"'\./?\S*\[([\w,]+)\]'", text)
        for extra in found.split(",")
    }
    assert {"models", "export"} <= named <= there


def test_readme_has_the_tests_in_a_block_of_commands() -> None:
    assert any(words[:2] == ["make", "test"] for name, words in COMMANDS.items() if name.startswith("README"))


# Links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)):
        assert (ROOT / page).parent.joinpath(link).exists(), link


# The reference


DOCUMENTED = {
    "elsa_ext": "elsa_ext",
    "elsa_ext.nn": "nn",
    "elsa_ext.models": "models",
    "elsa_ext.compat": "compat",
    "elsa_ext.compat.natten": "compat",
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_reference_has_every_public_name(name: str) -> None:
    module = importlib.import_module(name)
    page = PAGES[f"docs/api/{DOCUMENTED[name]}.md"]
    listed = set(re.findall(r"^\.\. (?:auto|py:)\w+:: (?:[\w.]+\.)?(\w+)$", page, flags=re.MULTILINE))
    for inner in re.findall(r"^\.\. automodule:: ([\w.]+)\n   :members:$", page, flags=re.MULTILINE):
        listed |= set(importlib.import_module(inner).__all__)
    public = {name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)}
    assert public and not public - listed


def test_reference_has_every_op() -> None:
    names = {name for op in elsa_ext.ops.registration.OPS for name in (op, f"{op}_backward")}
    for page in ("flops", "reference"):
        assert set(re.findall(r"^\.\. autofunction:: (\w+)$", PAGES[f"docs/api/{page}.md"], re.MULTILINE)) >= names


def test_every_page_is_in_the_contents() -> None:
    contents = set(re.findall(r"^([\w/]+)$", PAGES["docs/index.md"], flags=re.MULTILINE))
    there = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")}
    assert there - contents == {"index"}


# Messages on the page of troubleshooting


def strings(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_are_in_the_package() -> None:
    said = "\n".join(text for path in (ROOT / "python").rglob("*.py") for text in strings(path.read_text()))
    said += "".join(path.read_text() for path in (ROOT / "src").rglob("*.cpp"))
    rows = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/troubleshooting.md"], flags=re.MULTILINE)
    messages = [row for row in rows if "…" in row]
    assert len(messages) > 40
    for message in messages:
        for part in message.split("…"):
            assert part.strip(" ;:,()") in said, (message, part)


# What else the pages say


# Examples that need what is not here: why.
NOT_RUN = {
    "elsa_ext.ops.flops.fvcore_handles": "fvcore",
    "elsa_ext.models.checkpoint.load_official_checkpoint": "a file of weights",
    "elsa_ext.models.checkpoint.load_volo_checkpoint": "weights to download",
    "elsa_ext.models.convert.convert": "weights to download",
}


def examples() -> list[doctest.DocTest]:
    files = [path for path in (ROOT / "python").rglob("*.py") if ">>> " in path.read_text()]
    names = [".".join(path.relative_to(ROOT / "python").with_suffix("").parts) for path in files]
    found = [test for name in sorted(names) for test in doctest.DocTestFinder().find(importlib.import_module(name))]
    return [test for test in found if test.examples and test.name not in NOT_RUN]


@pytest.mark.thorough
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_examples_in_docstrings(example: doctest.DocTest) -> None:
    example.globs |= {"elsa_ext": elsa_ext, "FasterRCNN": FasterRCNN}
    example.globs |= {"value": torch.rand(1, 6, 8, 8), "attn": torch.rand(1, 49, 8, 8)}
    # What an example prints may be more than it shows, as a whole model is.
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example).failed == 0


def test_examples_that_are_not_run_are_there() -> None:
    for name in NOT_RUN:
        module, _, function = name.rpartition(".")
        assert ">>> " in getattr(importlib.import_module(module), function).__doc__


def test_citation_is_of_this_version() -> None:
    version = elsa_ext.__version__.partition("+")[0]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_files_that_the_architecture_names() -> None:
    """Of every op where they are named for one."""
    page = PAGES["docs/architecture.md"]
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

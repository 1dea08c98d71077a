"""The C++ program of docs/deployment, built with the CMake package that is installed beside the Python one."""

import os
import subprocess
import sysconfig
from pathlib import Path

import elsa_ext
import pytest
import torch
from deployment import models

PROGRAM = Path(__file__).parents[2] / "docs" / "deployment"

pytestmark = models.IGNORED


def run(*command: str | Path) -> str:
    """Run a command, with the cmake of this environment before others; return what it printed."""
    search = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    ran = subprocess.run(
        ["env", f"PATH={search}", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def classify(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    folder = tmp_path_factory.mktemp("classify")
    prefixes = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path};{elsa_ext.cmake_prefix_path}"
    options = [] if torch.version.cuda is None else [f"-DTorch_DIR={PROGRAM / 'torch_cpu'}"]
    # What some systems' compilers do unasked: leave out a library to which nothing refers.
    options.append("-DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed")
    run("cmake", "-S", PROGRAM, "-B", folder, prefixes, *options)
    run("cmake", "--build", folder)
    return folder / "classify"


@pytest.mark.thorough
@pytest.mark.xdist_group("classify")  # one build of it, not one in each process
@pytest.mark.parametrize("name", models.MODELS)
def test_program_answers_as_the_model(name: str, classify: Path, tmp_path: Path) -> None:
    model = models.create(name)
    images = models.images(model, 3)
    torch.jit.script(model).save(tmp_path / "model.pt")
    torch.save(images, tmp_path / "images.pt")
    with torch.no_grad():
        expected = model(images)
    said = run(classify, *(tmp_path / file for file in ("model.pt", "images.pt", "logits.pt")))
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=1e-4, atol=1e-4)
    assert [int(word) for word in said.split() if word.isdigit()] == expected.argmax(1).tolist()


@pytest.mark.parametrize(("asked", "found"), [(elsa_ext.__version__, True), ("99", False)])
def test_version_of_the_package(asked: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(version LANGUAGES CXX)\n"
        f"find_package(elsa_ext {asked} QUIET)\n"
        'message("found: ${elsa_ext_FOUND} ${elsa_ext_VERSION}")\n'
    )
    said = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={elsa_ext.cmake_prefix_path}")
    assert (f"found: 1 {elsa_ext.__version__}" in said) == found, said

"""The C++ programs of docs/deployment and the public headers, built with the CMake package beside the Python one."""

import os
import subprocess
import sysconfig
from pathlib import Path

import elsa_ext
import pytest
import torch
from deployment import models

PROGRAM = Path(__file__).parents[2] / "docs" / "deployment"

PACKAGES = [f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path};{elsa_ext.cmake_prefix_path}"]
if torch.version.cuda is not None:
    PACKAGES.append(f"-DTorch_DIR={PROGRAM / 'torch_cpu'}")

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
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs, built with what is installed."""
    folder = tmp_path_factory.mktemp("classify")
    # What some systems' compilers do unasked: leave out a library to which nothing refers.
    as_needed = "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--as-needed"
    run("cmake", "-S", PROGRAM, "-B", folder, as_needed, *PACKAGES)
    run("cmake", "--build", folder)
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("classify")  # one build of it, not one in each process
@pytest.mark.parametrize("name", models.MODELS)
def test_program_answers_as_the_model(name: str, programs: Path, tmp_path: Path) -> None:
    model = models.create(name)
    images = models.images(model, 3)
    torch.jit.script(model).save(tmp_path / "model.pt")
    torch.save(images, tmp_path / "images.pt")
    with torch.no_grad():
        expected = model(images)
    said = run(programs / "classify", *(tmp_path / file for file in ("model.pt", "images.pt", "logits.pt")))
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=1e-4, atol=1e-4)
    assert [int(word) for word in said.split() if word.isdigit()] == expected.argmax(1).tolist()


@pytest.mark.slow
@pytest.mark.xdist_group("classify")
def test_ops_by_their_headers(programs: Path, tmp_path: Path) -> None:
    """What attend.cpp gives is what the functions of Python give."""
    query, key = torch.randn(2, 2, 8, 6, 7)
    conv_weight, proj_weight = torch.randn(8, 4, 3, 3), torch.randn(27, 8)
    value, (mul, add) = torch.randn(2, 12, 6, 7), torch.randn(2, 12, 3, 3)
    torch.save([query, key, conv_weight, proj_weight, value, mul, add], tmp_path / "inputs.pt")
    attn = elsa_ext.hadamard_attention(query, key, conv_weight, None, proj_weight, None, heads=3)
    expected = elsa_ext.ghost_head(value, attn, mul, add, kernel_size=3)
    said = run(programs / "attend", tmp_path / "inputs.pt", tmp_path / "out.pt")
    assert said.strip() == "out: [2, 12, 6, 7]"
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)


HEADERS = sorted(path.name for path in (Path(elsa_ext.cmake_prefix_path).parents[1] / "include" / "elsa").glob("*.h"))

EVERY_ARGUMENT = """
#include <elsa/{op}.h>

#include <stdexcept>

// Calls the function and its backward with every argument that the schema has: neither may lack one.
void check(const char* name, std::size_t arguments) {{
  const auto& schema = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").schema();
  if (schema.arguments().size() != arguments) throw std::runtime_error(name);
}}

template <typename Result, typename... Arguments>
constexpr std::size_t count(Result (*)(Arguments...)) {{
  return sizeof...(Arguments);
}}

int main() {{
  check("elsa::{op}", count(&elsa::{op}));
  check("elsa::{op}_backward", count(&elsa::{op}_backward));
}}
"""


# Compiling what torch includes takes a quarter of a minute for each: one of them for `make test`.
@pytest.mark.thorough
@pytest.mark.parametrize(
    "header", [HEADERS[0], *(pytest.param(header, marks=pytest.mark.slow) for header in HEADERS[1:])]
)
def test_header_alone(header: str, tmp_path: Path) -> None:
    """Against nothing but torch and the installed package: it compiles, and its functions are those of the schemas."""
    (tmp_path / "main.cpp").write_text(EVERY_ARGUMENT.format(op=header.removesuffix(".h")))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(header LANGUAGES CXX)\n"
        "set(CMAKE_CXX_STANDARD 20)\n"
        "find_package(Torch REQUIRED)\n"
        "find_package(elsa_ext REQUIRED)\n"
        "add_executable(header main.cpp)\n"
        "target_compile_options(header PRIVATE -Wall -Wextra -Werror)\n"
        "target_link_libraries(header PRIVATE ${TORCH_LIBRARIES} elsa_ext::elsa_cpu)\n"
    )
    build = tmp_path / "build"
    run("cmake", "-S", tmp_path, "-B", build, *PACKAGES)
    run("cmake", "--build", build)
    assert run(build / "header") == ""


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

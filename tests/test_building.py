"""What is said of a machine on which elsa_ext cannot be built, and which settings a build heeds."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAST_CMAKE = re.search(r"cmake_minimum_required\(VERSION (.*)\)", (ROOT / "CMakeLists.txt").read_text()).group(1)
TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
CMAKE, NINJA = shutil.which("cmake", path=TOOLS), shutil.which("ninja", path=TOOLS)

# What an nvcc might do.
WORKS = 'case "$*" in *sm_990*) echo "nvcc fatal   : Unsupported gpu architecture" >&2; exit 1;; esac'
TOO_NEW = """echo 'In file included from cuda_runtime.h:82,'
echo "host_config.h:143:2: error: #error -- unsupported GNU version; it is \\"15\\"!" >&2
echo 'another error' >&2
exit 1"""
TOO_NEW_SAID = "host_config.h:143:2: error:  error -- unsupported GNU version  it is  15 !"
GONE = 'exec /gone/bin/nvcc "$@"'


class Machine:
    """A machine with a C++ compiler and without nvcc, on which CMake configures elsa_ext."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.build, self.failure = folder / "bin", folder / "build", folder / "failure.txt"
        self.bin.mkdir()
        for tool in ("as", "ld", "sh"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LD_LIBRARY_PATH", "TMPDIR")}
        self.environment = {
            **kept,
            "PATH": str(self.bin),
            "CXX": shutil.which("c++"),
            "ELSA_FAILURE_FILE": str(self.failure),
        }

    def add(self, tool: str, script: str) -> Path:
        """Put a shell script on PATH."""
        path = self.bin / tool
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def configure(self, *defines: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run CMake up to the first thing that is missing."""
        tools = [
            f"-DCMAKE_MAKE_PROGRAM={NINJA}",
            f"-DPython_EXECUTABLE={sys.executable}",
            "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF",
            "-DSKBUILD_PROJECT_VERSION=0",
        ]
        return subprocess.run(
            [CMAKE, "-S", ROOT, "-B", self.build, "-GNinja", *tools, *(f"-D{define}" for define in defines)],
            capture_output=True,
            text=True,
            env=self.environment | environment,
        )

    def reason(self, *defines: str, **environment: str) -> str:
        """Return why CMake stopped, which it must write in one line, and leave for the build backend."""
        process = self.configure(*defines, **environment)
        assert process.returncode != 0, process.stdout
        reason = self.failure.read_text()
        assert reason in process.stderr.replace("\n   ", "\n").splitlines()
        return reason


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_no_compiler(machine: Machine) -> None:
    del machine.environment["CXX"]
    assert "no C++ compiler was found: install GCC" in machine.reason()


def test_a_compiler_that_does_not_exist(machine: Machine) -> None:
    # CMake 4 writes the system's words in small letters.
    said = "g++-99 does not compile c++20 (no such file or directory): install"
    assert machine.reason(CXX="g++-99").lower().startswith(said)


def test_an_old_compiler(machine: Machine) -> None:
    compiler = machine.add("old", "echo \"c++: error: unrecognized option '-std=c++20'\" >&2; exit 1")
    said = f"{compiler} does not compile C++20 (c++: error: unrecognized option '-std=c++20'): install GCC"
    assert machine.reason(CXX=f"{compiler} -pthread").startswith(said)


@pytest.mark.parametrize("value", ["ON", "On", "1", "true", "yes", "autos", ""])
def test_elsa_cuda_is_auto_on_or_off(machine: Machine, value: str) -> None:
    assert machine.reason(f"ELSA_CUDA={value}") == f"ELSA_CUDA is '{value}', not auto, on or off"


def test_cuda_without_nvcc(machine: Machine) -> None:
    said = "ELSA_CUDA=on, but no nvcc was found; put an nvcc that works on PATH, or name it by CUDACXX; "
    assert machine.reason("ELSA_CUDA=on").startswith(said)


@pytest.mark.parametrize(
    ("script", "said"), [(TOO_NEW, TOO_NEW_SAID), (GONE, "/gone/bin/nvcc: not found"), ("exit 3", "exit code 3")]
)
def test_cuda_with_a_broken_nvcc(machine: Machine, script: str, said: str) -> None:
    nvcc = machine.add("nvcc", script)
    reason = machine.reason("ELSA_CUDA=on")
    assert reason.startswith(f"ELSA_CUDA=on, but {nvcc} does not work: ")
    assert f"{said}; put an nvcc that works on PATH" in reason


def test_cuda_with_an_nvcc_that_does_not_exist(machine: Machine) -> None:
    reason = machine.reason("ELSA_CUDA=on", CUDACXX="/gone/nvcc")
    assert reason.lower().startswith("elsa_cuda=on, but /gone/nvcc does not work: no such file or directory; put")


def test_nvcc_is_tried_with_its_host_compiler_and_flags(machine: Machine) -> None:
    machine.add("nvcc", 'echo "error: $*" >&2; exit 1')
    reason = machine.reason("ELSA_CUDA=on", CUDAHOSTCXX="g++-9", CUDAFLAGS="-allow-unsupported-compiler -v")
    assert "error: -allow-unsupported-compiler -v -ccbin g++-9 -std=c++20 -c " in reason


@pytest.mark.parametrize(
    ("given", "culprit", "said"),
    [
        ("7.5", "7.5", "but the CUDA kernels need compute capability 8.0 or newer"),
        ("9.0;7.0+PTX", "7.0+PTX", "but the CUDA kernels need compute capability 8.0 or newer"),
        ("Ampere", "Ampere", "not an architecture such as 8.0 or 9.0+PTX"),
        ("8.0 abc", "abc", "not an architecture such as 8.0 or 9.0+PTX"),
        ("native", "native", "not an architecture such as 8.0 or 9.0+PTX"),
        ("90", "90", "not an architecture such as 8.0 or 9.0+PTX"),
        ("8.0,9.0+ptx", "9.0+ptx", "not an architecture such as 8.0 or 9.0+PTX"),
        ("8.0 99.0", "99.0", "which this nvcc does not know: nvcc fatal   : Unsupported gpu architecture"),
    ],
)
def test_architectures_that_are_refused(machine: Machine, given: str, culprit: str, said: str) -> None:
    machine.add("nvcc", WORKS)
    reason = machine.reason(TORCH_CUDA_ARCH_LIST=given)
    assert re.fullmatch(rf"TORCH_CUDA_ARCH_LIST has '{re.escape(culprit)}',? {re.escape(said)}", reason)


@pytest.mark.parametrize("given", ["75", "90;75-real", "75-virtual", "all", "8.0", "sm_90"])
def test_architectures_of_cmake_that_are_refused(machine: Machine, given: str) -> None:
    machine.add("nvcc", WORKS)
    # What CMake itself is given counts, whatever the environment says.
    reason = machine.reason(f"CMAKE_CUDA_ARCHITECTURES={given}", TORCH_CUDA_ARCH_LIST="9.0")
    assert reason.startswith(f"CMAKE_CUDA_ARCHITECTURES has '{given.split(';')[-1]}', ")


@pytest.mark.parametrize(
    ("given", "variable", "taken"),
    [
        ("", "TORCH_CUDA_ARCH_LIST", "80-real;90"),
        ("8.0 9.0+PTX", "TORCH_CUDA_ARCH_LIST", "80-real;90"),
        ("8.0;8.6,12.0+PTX", "TORCH_CUDA_ARCH_LIST", "80-real;86-real;120"),
        ("9.0a 12.0f+PTX", "TORCH_CUDA_ARCH_LIST", "90a-real;120f"),
        ("80;90a-virtual;120-real", "CMAKE_CUDA_ARCHITECTURES", "80;90a-virtual;120-real"),
        ("native", "CMAKE_CUDA_ARCHITECTURES", "native"),
    ],
)
def test_architectures_that_are_taken(tmp_path: Path, given: str, variable: str, taken: str) -> None:
    script = f"""
cmake_minimum_required(VERSION {LEAST_CMAKE})
set(PROJECT_SOURCE_DIR {ROOT})
set(PROJECT_BINARY_DIR {tmp_path})
set(CMAKE_VERSION 3.31)
set(nvcc true)
include({ROOT}/cmake/checks.cmake)
include({ROOT}/cmake/architectures.cmake)
message(STATUS "[${{CMAKE_CUDA_ARCHITECTURES}}]")
"""
    (tmp_path / "script.cmake").write_text(script)
    of_cmake = [f"-D{variable}={given}"] if variable == "CMAKE_CUDA_ARCHITECTURES" else []
    of_torch = {"TORCH_CUDA_ARCH_LIST": given} if variable == "TORCH_CUDA_ARCH_LIST" else {}
    process = subprocess.run(
        [CMAKE, *of_cmake, "-P", tmp_path / "script.cmake"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **of_torch},
    )
    assert process.stdout == f"-- [{taken}]\n", process.stderr


def test_an_nvcc_that_came_later_is_found(machine: Machine) -> None:
    assert "no nvcc was found" in machine.reason("ELSA_CUDA=on")
    machine.add("nvcc", TOO_NEW)
    assert TOO_NEW_SAID in machine.reason("ELSA_CUDA=on")
    machine.add("nvcc", WORKS)
    assert "has '7.5'" in machine.reason("ELSA_CUDA=on", TORCH_CUDA_ARCH_LIST="7.5")


def test_python_without_headers(machine: Machine) -> None:
    said = f"Python.h of {sys.executable} was not found: install it (on Debian: apt install python3-dev)"
    assert machine.reason("Python_INCLUDE_DIR=/gone") == said


def test_python_without_pybind11(machine: Machine) -> None:
    said = f"pybind11 3 or newer was not found: {sys.executable} -m pip install pybind11"
    assert machine.reason("CMAKE_DISABLE_FIND_PACKAGE_pybind11=ON") == said


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("__version__ = '2.9.1+cpu'", r"torch 2\.9\.1\+cpu in .*/torch is too old: install torch 2\.10 or newer"),
        ("raise OSError('gone')", r".* cannot import torch \(OSError: gone\): install torch 2\.10 or newer there"),
    ],
    ids=["old", "broken"],
)
def test_a_torch_that_does_not_do(machine: Machine, tmp_path: Path, torch: str, said: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(torch)
    assert re.fullmatch(said, machine.reason(pybind11(), PYTHONPATH=str(tmp_path)))


def pybind11() -> str:
    """Tell CMake where it is, as scikit-build-core does."""
    folder = subprocess.check_output([sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip()
    return f"pybind11_DIR={folder}"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("nvcc", "said"),
    [(None, "no nvcc was found"), (TOO_NEW, f"{{}} does not work: {TOO_NEW_SAID}")],
    ids=["none", "broken"],
)
def test_left_out_with_the_reason(machine: Machine, nvcc: str | None, said: str) -> None:
    path = nvcc and machine.add("nvcc", nvcc)
    process = machine.configure(pybind11())
    assert process.returncode == 0, process.stderr
    assert f"-- CUDA kernels: none: {said.format(path)}" in process.stdout.splitlines()
    commands = (machine.build / "build.ninja").read_text()
    assert f"none: {said.format(path)}" in commands.replace("\\", "")  # what elsa_ext.build_info() will say


BACKEND = """
import sys
sys.path.insert(0, "cmake")
{before}
import build_backend
print(build_backend.{call})
"""


@pytest.fixture
def backend_says(tmp_path: Path) -> Callable[..., str]:
    """The last line of what the build backend writes."""

    def run(call: str, before: str = "", fails: bool = True, **environment: str) -> str:
        code = BACKEND.format(call=call.replace("TMP", str(tmp_path)), before=before)
        process = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}
        )
        assert (process.returncode != 0) == fails, process.stderr
        return (process.stderr if fails else process.stdout).splitlines()[-1]

    return run


BAD = "elsa-ext cannot be built: ELSA_CUDA is '{}', not auto, on or off (docs/building.md has more)"


@pytest.mark.parametrize("hook", ["build_wheel", "build_editable"])
def test_the_last_line_is_why(backend_says: Callable[..., str], hook: str) -> None:
    call = f"{hook}('TMP', {{'build-dir': 'TMP/build'}})"
    assert backend_says(call, ELSA_CUDA="1") == BAD.format(1)


def test_a_config_setting_beats_the_environment(backend_says: Callable[..., str]) -> None:
    call = "build_wheel('TMP', {'build-dir': 'TMP/build', 'cmake.define.ELSA_CUDA': 'always'})"
    assert backend_says(call, ELSA_CUDA="off") == BAD.format("always")


def test_no_scikit_build_core(backend_says: Callable[..., str]) -> None:
    said = backend_says("build_wheel('TMP')", before="sys.modules['scikit_build_core'] = None")
    assert said.startswith("elsa-ext cannot be built: ")
    for requirement in (*requirements(), f"cmake>={LEAST_CMAKE}", "ninja>="):
        assert f"'{requirement}" in said


def requirements() -> list[str]:
    """What the build needs of PyPI beside torch, by pyproject.toml."""
    line = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE).group(1)
    return [requirement for requirement in re.findall(r'"(.*?)"', line) if not requirement.startswith("torch")]


def test_no_cmake(backend_says: Callable[..., str]) -> None:
    said = backend_says("prepare_metadata_for_build_wheel('TMP', {'cmake.version': '>=99'})")
    assert said.startswith("elsa-ext cannot be built: Could not find CMake with version >=99; ")
    assert said.endswith("'ninja>=1.11'")


def test_an_old_python(backend_says: Callable[..., str]) -> None:
    said = backend_says("build_wheel('TMP')", before="sys.version_info, sys.version = (3, 9, 18), '3.9.18 (main)'")
    assert said == "elsa-ext cannot be built: this is Python 3.9.18, and it needs 3.10 or newer"


def test_the_cmake_that_is_asked_for_where_there_is_none(backend_says: Callable[..., str]) -> None:
    assert f"'cmake>={LEAST_CMAKE}'" in backend_says("get_requires_for_build_wheel()", fails=False, PATH="/gone")


@pytest.fixture
def no_nvcc(tmp_path: Path) -> str:
    """A PATH without nvcc."""
    return str(tmp_path / "none")


@pytest.mark.parametrize("hook", ["wheel", "editable"])
@pytest.mark.parametrize(
    ("wanted", "settings", "fetched"),
    [
        ("on", None, True),
        ("auto", None, False),
        ("off", {"cmake.define.ELSA_CUDA": "on"}, True),
        ("on", {"cmake.define.ELSA_CUDA": "off"}, False),
    ],
)
def test_nvcc_is_fetched_where_it_is_asked_for_and_missing(
    backend_says: Callable[..., str],
    no_nvcc: str,
    hook: str,
    wanted: str,
    settings: dict[str, str] | None,
    fetched: bool,
) -> None:
    requires = f"get_requires_for_build_{hook}({settings})"
    said = backend_says(requires, fails=False, ELSA_CUDA=wanted, PATH=no_nvcc, CUDACXX="", CUDA_PATH="")
    assert ("nvidia-cuda-nvcc==13.0.*" in said) == fetched


@pytest.mark.parametrize("given", ["CUDACXX", "CUDA_PATH", "PATH"])
def test_no_nvcc_is_fetched_where_there_is_one(
    backend_says: Callable[..., str], machine: Machine, no_nvcc: str, given: str
) -> None:
    nvcc = machine.add("nvcc", WORKS)
    places = {"PATH": no_nvcc, "CUDACXX": "", "CUDA_PATH": ""}
    places[given] = {"CUDACXX": str(nvcc), "CUDA_PATH": str(nvcc.parents[1]), "PATH": str(nvcc.parent)}[given]
    said = backend_says("get_requires_for_build_wheel()", fails=False, ELSA_CUDA="on", **places)
    assert "nvidia-cuda-nvcc" not in said


def test_the_nvcc_that_pip_fetched_is_tried(
    backend_says: Callable[..., str], machine: Machine, tmp_path: Path, no_nvcc: str
) -> None:
    (tmp_path / "site/nvidia/cu13").mkdir(parents=True)
    machine.add("nvcc", TOO_NEW)
    machine.bin.rename(tmp_path / "site/nvidia/cu13/bin")
    call = "build_wheel('TMP', {'build-dir': 'TMP/build', 'cmake.define.ELSA_CUDA': 'on'})"
    tools = os.pathsep.join(str(Path(tool).parent) for tool in (CMAKE, NINJA, *map(shutil.which, ("cc", "c++"))))
    assert not shutil.which("nvcc", path=tools), "nvcc is beside other tools"
    said = backend_says(call, PATH=tools, CUDACXX="", CUDA_PATH="", PYTHONPATH=str(tmp_path / "site"))
    assert f"{tmp_path}/site/nvidia/cu13/bin/nvcc does not work: {TOO_NEW_SAID}" in said


FIND = ROOT / "cmake" / "nvcc.py"
SAYS_12_6 = "echo 'Cuda compilation tools, release 12.6, V12.6.85'"


def find_nvcc(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "HOME": os.environ.get("HOME", ""), **environment}
    return subprocess.run([sys.executable, FIND, *arguments], capture_output=True, text=True, env=environment)


def test_the_nvcc_of_a_version_is_that_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    nvcc = machine.add("nvcc", SAYS_12_6)
    assert find_nvcc(PATH=str(machine.bin)).stdout == "12.6\n"
    assert find_nvcc().stdout == "13.0\n"
    assert find_nvcc("12.6", tmp_path / "fetched", PATH=str(machine.bin)).stdout == f"{nvcc}\n"


def test_the_nvcc_of_another_version_is_fetched_once(machine: Machine, tmp_path: Path) -> None:
    machine.add("nvcc", SAYS_12_6)
    fetched = tmp_path / "fetched/nvidia/cu99/bin/nvcc"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert find_nvcc("99.0", tmp_path / "fetched", PATH=str(machine.bin)).stdout == f"{fetched}\n"


@pytest.mark.thorough
def test_an_nvcc_that_cannot_be_fetched(tmp_path: Path) -> None:
    process = find_nvcc("99.0", tmp_path / "fetched", PIP_NO_INDEX="1")
    assert process.returncode == 1 and process.stdout == ""
    assert process.stderr.splitlines()[-1].startswith("nvcc of CUDA 99.0: pip could not fetch it")


@pytest.mark.thorough
def test_the_sdist_has_what_a_build_needs(backend_says: Callable[..., str], tmp_path: Path) -> None:
    name = backend_says("build_sdist('TMP')", fails=False)
    with tarfile.open(tmp_path / name) as archive:
        files = {member.split("/", 1)[1] for member in archive.getnames()}
    assert {f"cmake/{path.name}" for path in (ROOT / "cmake").iterdir() if path.is_file()} <= files

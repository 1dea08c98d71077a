"""The scripts that finish a wheel and check it: what is published says what it is, and faults are found."""

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import elsa_ext
import pytest

pytest.importorskip("wheel")
pytest.importorskip("elftools")
from wheel.wheelfile import WheelFile

SCRIPTS = Path(__file__).parents[1] / ".github" / "scripts"
VERSION = elsa_ext.__version__.partition("+")[0]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build puts into a wheel: the package as it is installed here."""
    tree = tmp_path_factory.mktemp("wheel")
    for folder in elsa_ext.__path__:
        shutil.copytree(folder, tree / "elsa_ext", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    info = tree / f"elsa_ext-{VERSION}.dist-info"
    info.mkdir()
    fields = ("Metadata-Version: 2.2", "Name: elsa-ext", f"Version: {VERSION}")
    (info / "METADATA").write_text("\n".join([*fields, "Requires-Dist: torch>=2.10", "Requires-Dist: numpy", ""]))
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n")
    return tree


def pack(tree: Path, path: Path) -> Path:
    with WheelFile(path, "w") as file:
        file.write_files(tree)
    return path


def finish_wheel(name: str) -> Callable[..., object]:
    return runpy.run_path(str(SCRIPTS / "finish_wheel.py"))[name]


@pytest.fixture
def finished(tree: Path, tmp_path: Path) -> Path:
    """A tree with a local version, in a folder of its own."""
    copy = shutil.copytree(tree, tmp_path / "tree")
    finish_wheel("set_local_version")(copy, finish_wheel("local_version")(copy))
    return copy


@pytest.fixture
def check(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Check the wheel of the tree, and return what is wrong with it."""

    def check(*options: str) -> str:
        (info,) = finished.glob("*.dist-info")
        version = info.name.removeprefix("elsa_ext-").removesuffix(".dist-info")
        wheel = pack(finished, tmp_path / f"elsa_ext-{version}-py3-none-manylinux_2_28_x86_64.whl")
        try:
            runpy.run_path(str(SCRIPTS / "check_wheel.py"))["main"]([str(wheel), *options])
        except SystemExit as end:
            return str(end.code)
        return ""

    return check


@pytest.mark.thorough
def test_what_was_built_is_right(check, finished: Path) -> None:
    assert check() == ""
    local = "cpu" if elsa_ext.build_info()["CUDA kernels"].startswith("none") else "cu"
    assert re.fullmatch(rf"Version: {VERSION}\+{local}\d*", metadata(finished).splitlines()[2])


def metadata(tree: Path) -> str:
    (path,) = tree.glob("*.dist-info/METADATA")
    return path.read_text()


def leave_out(tree: Path) -> None:
    (tree / "elsa_ext" / "py.typed").unlink()


def leave_out_compiled_part(tree: Path) -> None:
    for path in tree.glob("elsa_ext/_C.*.so"):
        path.unlink()


def add_tests(tree: Path) -> None:
    (tree / "tests").mkdir()
    (tree / "tests" / "test_it.py").touch()


def require_more(tree: Path) -> None:
    (path,) = tree.glob("*.dist-info/METADATA")
    path.write_text(metadata(tree) + "Requires-Dist: timm\n")


def rename_version(tree: Path) -> None:
    (path,) = tree.glob("*.dist-info/METADATA")
    path.write_text(metadata(tree).replace("Version: 0", "Version: 7"))


def append(content: bytes) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        with (tree / "elsa_ext" / "libelsa_cpu.so").open("ab") as file:
            file.write(content)

    return change


def replace(old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        path = tree / "elsa_ext" / "libelsa_cpu.so"
        content = path.read_bytes()
        assert old in content and len(old) == len(new)
        path.write_bytes(content.replace(old, new))

    return change


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (leave_out, "elsa_ext/py.typed is missing"),
        (leave_out_compiled_part, "there is no elsa_ext/_C.*.so"),
        (add_tests, "tests/test_it.py does not belong into it"),
        (require_more, "it requires ['torch>=2.10', 'numpy', 'timm'], not numpy and torch>=2.10"),
        (rename_version, "its metadata are of version 7"),
        (append(b"\0/home/me/elsa-ext/src/op.cpp\0"), "libelsa_cpu.so names /home/me/elsa-ext/src/op.cpp"),
        (replace(b"\0$ORIGIN\0", b"\0/my/lib\0"), "libelsa_cpu.so: its RUNPATH is ['/my/lib'], not $ORIGIN"),
        (replace(b"\0libtorch_cpu.so\0", b"\0libtorch_our.so\0"), "libelsa_cpu.so: it needs libtorch_our.so"),
        (replace(b"\0aoti_torch_get_dim\0", b"\0PyObject_Size_dim_\0"), "it needs the symbol PyObject_Size_dim_"),
        (replace(b"\0elsa_build_info\0", b"\0blas_build_info\0"), "it shows the symbol blas_build_info"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_faults_are_found(check, finished: Path, change: Callable[[Path], None], said: str) -> None:
    change(finished)
    assert said in check()


@pytest.mark.thorough
def test_only_the_wheel_for_pypi_has_no_local_version(check, finished: Path) -> None:
    assert "is not elsa_ext-X.Y.Z-py3-none-PLATFORM.whl" in check("--plain")
    assert finish_wheel("set_local_version")(finished, "") == VERSION
    assert check("--plain") == ""
    assert "is not elsa_ext-X.Y.Z+(cpu|cuNNN)-py3-none-PLATFORM.whl" in check()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("8.0 9.0+PTX", []),
        ("8.0 9.0 10.0+PTX", ["elf for ['80', '90'], not for ['100', '80', '90']", "ptx for ['90'], not for ['100']"]),
        ("8.0 9.0", ["ptx for ['90'], not for []"]),
    ],
)
def test_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, said: list[str]) -> None:
    """The listing of cuobjdump for a library with code for 8.0 and 9.0, and PTX for 9.0."""
    listed = "if [ $1 = --list-elf ]; then echo 'ELF file 1: a.1.sm_80.cubin'; echo 'ELF file 2: a.2.sm_90.cubin'"
    tool = tmp_path / "cuobjdump"
    tool.write_text(f"#!/bin/sh\n{listed}; else echo 'PTX file 1: a.1.sm_90.ptx'; fi\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = runpy.run_path(str(SCRIPTS / "check_wheel.py"))["check_architectures"]
    problems = list(check(Path("libelsa_cuda.so"), wanted.split()))
    assert problems == [f"libelsa_cuda.so: it has {problem}" for problem in said]

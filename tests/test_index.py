"""The index of wheels: pip finds in it what the docs say that people get."""

import functools
import http.server
import runpy
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MAKE_INDEX = Path(__file__).parents[1] / ".github" / "scripts" / "make_index.py"


def make_wheel(folder: Path, version: str, requires_python: str = ">=3.10") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"elsa_ext-{version}.dist-info"
    fields = ("Metadata-Version: 2.2", "Name: elsa-ext", f"Version: {version}", f"Requires-Python: {requires_python}")
    with zipfile.ZipFile(folder / f"elsa_ext-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\n".join(fields) + "\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def make_index(*args: str) -> None:
    runpy.run_path(str(MAKE_INDEX))["main"](args)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of a site with the wheels of two releases, their indexes, and an index that stands for PyPI."""
    for version in ("0.1.0", "0.2.0"):
        make_wheel(tmp_path / "pypi" / "elsa-ext", version)
        for kind in ("cpu", "cu130"):
            make_wheel(tmp_path / "wheels" / f"v{version}", f"{version}+{kind}")
    make_wheel(tmp_path / "wheels" / "v0.3.0", "0.3.0+cu130", requires_python=">=9")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        make_index(str(tmp_path / "wheels"), "--base-url", f"{url}/wheels", "--output", str(tmp_path / "whl"))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield url
        server.shutdown()
        thread.join()


@pytest.fixture
def download(site: str, tmp_path: Path) -> Callable[[str, str], str]:
    """Download a requirement as pip does with an extra index, and return the version that it took, or its last line."""

    def download(kind: str, requirement: str) -> str:
        options = ("--isolated", "--no-cache-dir", "--disable-pip-version-check", "--no-deps", "--quiet")
        indexes = ("--index-url", f"{site}/pypi/", "--extra-index-url", f"{site}/whl/{kind}/")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            *indexes,
            "-d",
            str(tmp_path / "got"),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        (wheel,) = (tmp_path / "got").iterdir()
        return wheel.name.split("-")[1]

    return download


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "requirement", "version"),
    [
        ("cu130", "elsa-ext", "0.2.0+cu130"),  # not 0.3.0, which needs a newer Python
        ("cpu", "elsa-ext", "0.2.0+cpu"),
        ("cu130", "elsa-ext==0.1.0", "0.1.0+cu130"),
        ("cpu", "elsa-ext==0.1.0+cu130", "ERROR: No matching distribution found for elsa-ext==0.1.0+cu130"),
    ],
)
def test_pip_takes_the_wheel_of_the_index(
    download: Callable[[str, str], str], kind: str, requirement: str, version: str
) -> None:
    assert download(kind, requirement) == version


@pytest.mark.thorough
def test_pip_refuses_a_wheel_that_was_changed(download: Callable[[str, str], str], tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels" / "v0.2.0", "0.2.0+cu130", requires_python=">=3")
    assert "Got" in download("cu130", "elsa-ext")


def test_a_wheel_without_a_local_version_has_no_place(tmp_path: Path) -> None:
    make_wheel(tmp_path, "0.1.0")
    with pytest.raises(SystemExit, match=r"elsa_ext-0\.1\.0-py3-none-any\.whl has no local version"):
        make_index(str(tmp_path), "--base-url", "http://here", "--output", str(tmp_path))


def test_no_wheels_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no wheel in"):
        make_index(str(tmp_path), "--base-url", "http://here", "--output", str(tmp_path))


def test_a_link_says_which_python_it_needs(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels" / "v0.1.0", "0.1.0+cpu", requires_python=">=9")
    make_index(str(tmp_path / "wheels"), "--base-url", "http://here/", "--output", str(tmp_path))
    page = (tmp_path / "cpu" / "elsa-ext" / "index.html").read_text("utf-8")
    assert '<a href="http://here/v0.1.0/elsa_ext-0.1.0%2Bcpu-py3-none-any.whl#sha256=' in page
    assert 'data-requires-python="&gt;=9">elsa_ext-0.1.0+cpu-py3-none-any.whl</a>' in page

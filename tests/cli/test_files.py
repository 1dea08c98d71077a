"""A file is written whole or not at all, under its own name and permissions, and an error names it."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from elsa_ext.cli.files import check_writable, write_whole

from .conftest import limit_of_file_size

KILLED = """
import os, signal, sys
from pathlib import Path
from elsa_ext.cli.files import write_whole

def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_whole(Path(sys.argv[1]), write)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there."""
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    return path


def write_new(file: BinaryIO) -> None:
    file.write(b"new")


@pytest.mark.thorough
def test_killed_while_writing(path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    left = {*path.parent.iterdir()} - {path}
    assert [file.suffix for file in left] == [".part"]
    write_whole(path, write_new)
    assert path.read_bytes() == b"new"
    assert {*path.parent.iterdir()} == {path, *left}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("wrong")], ids=repr)
def test_failure_while_writing(path: Path, error: BaseException) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as caught:
        write_whole(path, write)
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers(path: Path) -> None:
    half, go_on = threading.Event(), threading.Event()

    def write(file: BinaryIO) -> None:
        file.write(b"A" * 10)
        file.flush()
        half.set()
        assert go_on.wait(10)
        file.write(b"A" * 10)

    slow = threading.Thread(target=write_whole, args=(path, write))
    slow.start()
    assert half.wait(10)
    write_whole(path, lambda file: file.write(b"B" * 30))
    assert path.read_bytes() == b"B" * 30
    go_on.set()
    slow.join()
    assert path.read_bytes() == b"A" * 20
    assert list(path.parent.iterdir()) == [path]


def test_full_disk(path: Path) -> None:
    for content in ([torch.zeros(100_000)], [torch.zeros(1)] * 5000, "x" * 100_000):  # fails early, late and at once
        with limit_of_file_size(10_000), pytest.raises(OSError) as caught:
            write_whole(path, lambda file, content=content: torch.save(content, file))
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]


def test_full_disk_that_the_writer_does_not_mind(path: Path) -> None:
    def write(file: BinaryIO) -> None:
        try:
            file.write(bytes(100_000))
        except OSError:
            os.ftruncate(file.fileno(), 0)

    with limit_of_file_size(10_000), pytest.raises(OSError, match="too large"):
        write_whole(path, write)
    assert path.read_bytes() == b"old"


def test_on_the_disk_before_it_is_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, write_new)
    (part, before), (folder, after) = synced
    assert (Path(part).suffix, before) == (".part", b"old")
    assert (folder, after) == (str(path.parent), b"new")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", write_new)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "name", ["x" * 255, "ö" * 127, os.fsdecode(b"\xe9"), "-", " ", "a\nb"], ids=lambda name: name[:1]
)
def test_names(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    write_whole(tmp_path / name, write_new)
    assert (tmp_path / name).read_bytes() == b"new"


def test_links_are_followed(path: Path) -> None:
    folder = path.parent / "links"
    folder.mkdir()
    for name, target in (("link", path), ("dangling", path.parent / "second")):
        (folder / name).symlink_to(target)
        write_whole(folder / name, write_new)
        assert (folder / name).is_symlink()
        assert target.read_bytes() == b"new"
    assert {file.name for file in path.parent.iterdir()} == {"links", "checkpoint.pt", "second"}


def test_pipes_stay_pipes(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    check_writable(pipe)
    reader.start()
    write_whole(pipe, write_new)
    reader.join(10)
    assert read == [b"new"]
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("place", ["file/x", "no/x", "y" * 256, "loop", "/proc/x", "/proc/self/fd/no/x", "loop/x"])
def test_unwritable_places(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = {*tmp_path.iterdir()}
    path = tmp_path / place
    for attempt in (lambda: write_whole(path, write_new), lambda: check_writable(path)):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.filename == str(path)
    assert {*tmp_path.iterdir()} == before
    assert (tmp_path / "file").read_bytes() == b"old"


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, write_new)
    assert list(tmp_path.iterdir()) == []

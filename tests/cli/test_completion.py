"""``elsa-ext completion``: scripts that shells accept, and that complete what the parser takes."""

import os
import pty
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Result

Command = Callable[..., Result]

ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_elsa_ext
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(command: Command, tmp_path: Path) -> Path:
    path = tmp_path / "elsa-ext.bash"
    path.write_text(command("completion", "bash").out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    code = ASK.format(script=script, words=" ".join(map(shlex.quote, words)))
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_accepts_it(command: Command, tmp_path: Path, shell: str) -> None:
    result = command("completion", shell)
    assert (result.code, result.err) == (0, "") and "evaluate" in result.out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(result.out)
    assert subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True).stderr == ""


@pytest.mark.thorough
def test_bash_completes(script: Path) -> None:
    assert completed(script, "elsa-ext", "e") == ["evaluate", "export"]
    assert completed(script, "elsa-ext", "bench", "") == ["op", "module", "model"]
    assert completed(script, "elsa-ext", "completion", "") == ["bash", "zsh", "fish"]
    assert completed(script, "elsa-ext", "classify", "a.pt", "b c.png", "--b") == ["--batch-size"]
    assert completed(script, "elsa-ext", "bench", "op", "--dt") == ["--dtype"]
    assert completed(script, "elsa-ext", "--v") == ["--version"]
    assert completed(script, "elsa-ext", "train", "--amp", "") == ["bf16", "fp16"]
    assert completed(script, "elsa-ext", "train", "--amp", "bf16", "b") == []
    assert completed(script, "elsa-ext", "bench", "op", "--op", "ghost_head", "neighborhood_l") == [
        "neighborhood_logits"
    ]
    assert completed(script, "elsa-ext", "train", "--data", "") == []  # and hence file names


@pytest.mark.thorough
def test_bash_completes_file_names(script: Path, tmp_path: Path) -> None:
    (tmp_path / "my checkpoint.pt").touch()
    (tmp_path / "inputrc").write_text("set enable-bracketed-paste off\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ |= {"INPUTRC": "inputrc", "PS1": "", "TERM": "dumb"}
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    typed = f"source {script}; elsa-ext() {{ printf 'got <%s>' \"$@\"; }}\nelsa-ext evaluate my\t\nexit\n"
    os.write(terminal, typed.encode())
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
    os.waitpid(child, 0)
    assert b"got <evaluate>got <my checkpoint.pt>" in shown

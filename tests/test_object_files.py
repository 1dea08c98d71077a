"""What the build leaves in object files."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ops.backends import CAPABILITIES


@pytest.mark.skipif("ELSA_EMULATED_LIBRARY" not in os.environ, reason="the library in it tells where the build is")
@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
@pytest.mark.parametrize("capability", CAPABILITIES[1:])
def test_no_weak_symbol_beside_an_instruction_set(capability: str) -> None:
    """Of two copies of a weak function the linker keeps one: that of AVX-512, maybe, for callers of the baseline."""
    build = Path(os.environ["ELSA_EMULATED_LIBRARY"]).parents[2]
    folder = build / "CMakeFiles" / f"cpu_{capability}.dir"
    objects = list(folder.rglob("*.o"))
    if not objects:
        pytest.skip(f"{build} has no kernels for {capability}")
    symbols = subprocess.run(
        ["nm", "-C", "--defined-only", *objects], capture_output=True, text=True, check=True
    ).stdout
    weak = [line for line in symbols.splitlines() if re.match(r"[0-9a-f]+ [WVu] (?!DW\.ref\.)", line)]
    assert weak == []

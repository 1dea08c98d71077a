"""What the tests of PTX share. Those of kernels need nvcc, which makes it, and the emulated library, which launches."""

import shutil

import pytest
from ops import backends
from ptx.launches import Ptx

MADE = shutil.which("nvcc") is not None and backends.EMULATED in backends.ALL
collect_ignore = [] if MADE else ["test_kernels.py", "test_faults.py"]


@pytest.fixture(scope="session")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> Ptx:
    return Ptx(tmp_path_factory.mktemp("ptx"))

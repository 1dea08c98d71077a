"""What the op tests share: one thread, because their calls are many and tiny."""

from collections.abc import Iterator

import pytest
import torch
from ops import backends

collect_ignore = [
    *([] if backends.CUDA in backends.ALL else ["test_cuda.py"]),
    *([] if backends.EMULATED in backends.ALL else ["test_emulation.py"]),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

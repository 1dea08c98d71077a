"""The compiled part that is not an op."""

from typing import Any

import numpy as np

cuda_build: str

def build_info() -> dict[str, str]: ...
def launch_plan(op: str, **shape: int | str) -> dict[str, int | str]: ...

class reference:
    @staticmethod
    def ghost_head(*args: Any) -> np.ndarray: ...
    @staticmethod
    def ghost_head_backward(*args: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]: ...
    @staticmethod
    def hadamard_attention(*args: Any) -> np.ndarray: ...
    @staticmethod
    def hadamard_attention_backward(
        *args: Any,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]: ...

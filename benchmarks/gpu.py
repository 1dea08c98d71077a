"""Time the ops on a GPU at the shapes of the published models, against what people would use in their place.

``python benchmarks/gpu.py OUT.json`` prints one table and writes all figures with machine, versions and commit. Floors
are the bytes of the tensors, each counted once, over the bandwidth of a device copy in the same run.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import elsa_ext.models
import torch
import torch.nn.functional as F
from elsa_ext.nn import ELSA
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

REPEATS = 20


@dataclass(frozen=True)
class Shape:
    """One attention layer of a model: map side, channels, heads, K, channels of query and of a convolution group."""

    name: str
    side: int
    channels: int
    heads: int
    kernel_size: int
    narrow: int
    group_width: int


SHAPES = (
    Shape("Swin-T stage 1", 56, 96, 3, 7, 64, 4),
    Shape("Swin-T stage 2", 28, 192, 6, 7, 128, 4),
    Shape("Swin-T stage 3", 14, 384, 12, 7, 256, 4),
    Shape("VOLO-D1", 28, 192, 6, 5, 128, 8),
)


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(function: Callable[[], object], device: str) -> float | None:
    """Return the median time of a call, or None if the device cannot do it or its memory is too small."""
    try:
        for _ in range(3):
            function()
        times = []
        for _ in range(REPEATS if device == "cuda" else 1):
            synchronize(device)
            if device == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                function()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
            else:
                begin = time.perf_counter()
                function()
                times.append(1e3 * (time.perf_counter() - begin))
        return statistics.median(times)
    except (torch.OutOfMemoryError, NotImplementedError):
        return None
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()


def both_ways(function: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a call of ``function`` without gradients, and one with its backward."""

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    grad = torch.randn_like(forward())

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(*leaves), leaves, grad)

    return forward, forward_backward


def image(batch: int, channels: int, side: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return a random channels-last map."""
    made = torch.randn(batch, channels, side, side, dtype=dtype, device=device)
    return made.contiguous(memory_format=torch.channels_last)


def by_formula(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function`` with the plain-PyTorch formula behind it."""

    def run(*inputs: Tensor) -> Tensor:
        with elsa_ext.use_backend("torch"):
            return function(*inputs)

    return run


def ghost_head_rivals(shape: Shape, batch: int, dtype: torch.dtype, device: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the ghost head of ELSA-Swin and its rivals, each as name, function and inputs."""
    size, taps = shape.kernel_size, shape.kernel_size**2
    value = image(batch, shape.channels, shape.side, dtype, device)
    attn = image(batch, shape.heads * taps, shape.side, dtype, device)
    attn = attn.unflatten(1, (shape.heads, taps)).softmax(2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    add = torch.randn(shape.channels, size, size, dtype=dtype, device=device)

    def ours(value: Tensor, attn: Tensor, add: Tensor) -> Tensor:
        return elsa_ext.ghost_head(value, attn, None, add, kernel_size=size)

    yield "elsa_ext", ours, [value, attn, add]
    yield "formula", by_formula(ours), [value, attn, add]
    yield "compiled formula", torch.compile(by_formula(ours)), [value, attn, add]

    def depthwise(value: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(value, weight, padding=size // 2, groups=shape.channels)

    yield "cuDNN depthwise", depthwise, [value, add[:, None].contiguous()]

    def near(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        rows = (query // shape.side - key // shape.side).abs()
        return (rows <= size // 2) & ((query % shape.side - key % shape.side).abs() <= size // 2)

    length = shape.side**2
    mask = create_block_mask(near, None, None, length, length, device=device)
    tokens = [torch.randn(batch, shape.heads, length, 32, dtype=dtype, device=device) for _ in range(3)]
    compiled = torch.compile(flex_attention)
    yield "FlexAttention", lambda query, key, value: compiled(query, key, value, block_mask=mask), tokens


def hadamard_rivals(shape: Shape, batch: int, dtype: torch.dtype, device: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the Hadamard attention and its rivals, each as name, function and inputs."""
    size = shape.kernel_size
    query, key = (image(batch, shape.narrow, shape.side, dtype, device) for _ in range(2))
    conv = torch.randn(shape.narrow, shape.group_width, size, size, dtype=dtype, device=device) / size
    proj = torch.randn(shape.heads * size**2, shape.narrow, dtype=dtype, device=device) / shape.narrow**0.5
    biases = [torch.randn(count, dtype=dtype, device=device) for count in (shape.narrow, shape.heads * size**2)]
    inputs = [query, key, conv, biases[0], proj, biases[1]]

    def ours(*tensors: Tensor) -> Tensor:
        return elsa_ext.hadamard_attention(*tensors, heads=shape.heads)

    yield "elsa_ext", ours, inputs
    yield "cuDNN composition", by_formula(ours), inputs
    yield "compiled composition", torch.compile(by_formula(ours)), inputs


def layer_rivals(shape: Shape, batch: int, dtype: torch.dtype, device: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the whole layer, and timm's shifted window attention."""
    x = torch.randn(batch, shape.side, shape.side, shape.channels, dtype=dtype, device=device)
    layer = ELSA(
        shape.channels,
        shape.heads,
        kernel_size=shape.kernel_size,
        qk_scale=1,
        group_width=shape.group_width,
        lam=0,
        device=device,
        dtype=dtype,
    )
    yield "elsa_ext", layer, [x]
    side = (shape.side, shape.side)
    block = SwinTransformerBlock(shape.channels, side, shape.heads, window_size=7, shift_size=3).to(device, dtype)
    yield "window attention", block._attn, [x]


OPS = {"ghost_head": ghost_head_rivals, "hadamard_attention": hadamard_rivals, "ELSA layer": layer_rivals}


def least_bytes(op: str, shape: Shape, batch: int, dtype: torch.dtype) -> tuple[int, int] | None:
    """Return what an op's forward and its forward and backward have to move."""
    pixels = batch * shape.side**2 * dtype.itemsize
    attn = shape.heads * shape.kernel_size**2
    if op == "ghost_head":
        forward = pixels * (2 * shape.channels + attn)
        return forward, forward + pixels * (3 * shape.channels + 2 * attn)
    if op == "hadamard_attention":
        forward = pixels * (2 * shape.narrow + attn)
        return forward, forward + pixels * (4 * shape.narrow + 2 * attn)
    return None


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    source = torch.randn(2**28 if device == "cuda" else 2**20, device=device)
    target = torch.empty_like(source)
    return 2e3 * source.numel() * 4 / milliseconds(lambda: target.copy_(source), device)


def environment(device: str) -> dict[str, Any]:
    """Return machine, versions and commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    return {
        "device": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "elsa_ext": elsa_ext.build_info(),
        "commit": commit or "unknown",
    }


def measure(batch: int, device: str, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield one record per op, shape, dtype and rival; stop at the deadline."""
    bandwidth = copy_bandwidth(device)
    for dtype in (torch.bfloat16, torch.float32):
        for shape in SHAPES:
            for op, rivals in OPS.items():
                for rival, function, inputs in rivals(shape, batch, dtype, device):
                    if time.monotonic() > deadline:
                        print("out of time: the rest is left out")
                        return
                    record = {"op": op, "shape": shape.name, "dtype": str(dtype).removeprefix("torch."), "rival": rival}
                    try:
                        calls = both_ways(function, inputs)
                        times = [milliseconds(call, device) for call in calls]
                    except torch.OutOfMemoryError:
                        times = [None, None]
                    moved = least_bytes(op, shape, batch, dtype)
                    floors = [1e3 * count / bandwidth for count in moved] if moved else [None, None]
                    for direction, time_, floor in zip(("forward", "forward + backward"), times, floors, strict=True):
                        yield {**record, "direction": direction, "ms": time_, "floor_ms": floor}


def show(records: list[dict[str, Any]]) -> None:
    """Print a line per op, shape, dtype and direction: ours, over its floor, and how many times as long rivals take."""
    groups: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for record in records:
        key = tuple(record[name] for name in ("op", "shape", "dtype", "direction"))
        groups.setdefault(key, {})[record["rival"]] = record
    for key, rivals in groups.items():
        ours = rivals.pop("elsa_ext")
        over = f"{ours['ms'] / ours['floor_ms']:5.2f} x floor" if ours["floor_ms"] and ours["ms"] else ""
        shown = f"{ours['ms']:8.3f} ms" if ours["ms"] else "no memory"
        line = f"{key[0]:19}{key[1]:16}{key[2]:10}{key[3]:19}{shown} {over:14}"
        for name, rival in rivals.items():
            ratio = f"{rival['ms'] / ours['ms']:.1f} x" if rival["ms"] and ours["ms"] else "no memory"
            line += f" {name} {ratio};"
        print(line)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.json", help="file to write")
    parser.add_argument("--batch", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=240, help="time after which to stop (default: %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    records = []
    for record in measure(arguments.batch, arguments.device, time.monotonic() + arguments.seconds):
        records.append(record)
        text = json.dumps({**environment(arguments.device), "batch": arguments.batch, "records": records}, indent=1)
        arguments.out.write_text(text + "\n")
    show(records)


if __name__ == "__main__":
    main()

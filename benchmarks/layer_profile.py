"""Where the time of one ELSA layer goes, by PyTorch's profiler.

``python benchmarks/layer_profile.py swin-t-1`` prints the operators that take the most time by themselves, for a
forward and for a forward and backward of ``elsa_ext.nn.ELSA`` at batch 8 in float32. Shares carry from machine to
machine better than times do.
"""

import argparse
import logging
from collections.abc import Callable

import torch
from elsa_ext.nn import ELSA
from torch.profiler import ProfilerActivity, profile

LAYERS = {"swin-t-1": (56, 96), "swin-t-2": (28, 192), "swin-t-3": (14, 384)}
BATCH, CALLS, ROWS = 8, 10, 10


def show(title: str, call: Callable[[], object]) -> None:
    """Print a row per operator: milliseconds a call, share, calls."""
    for _ in range(3):
        call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(CALLS):
            call()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print(f"{title}: {total / CALLS / 1e3:.1f} ms")
    for row in rows[:ROWS]:
        name = row.key.replace("GeneratedBackwardFor_", "").replace("_default", "")
        share = row.self_cpu_time_total / total
        print(f"  {name:<44}{row.self_cpu_time_total / CALLS / 1e3:8.2f} ms {share:7.1%} {row.count / CALLS:6.0f} x")


def main() -> None:
    """Profile one layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer", choices=LAYERS, help="an attention layer of ELSA-Swin-T")
    side, channels = LAYERS[parser.parse_args().layer]
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    layer = ELSA(channels, channels // 32, kernel_size=7, qkv_bias=True, qk_scale=1, group_width=4, lam=0)
    x = torch.randn(BATCH, side, side, channels, requires_grad=True)
    grad = torch.randn_like(x)
    inputs = [x, *layer.parameters()]
    with torch.no_grad():
        show("forward", lambda: layer(x))
    show("forward + backward", lambda: torch.autograd.grad(layer(x), inputs, grad))


if __name__ == "__main__":
    main()

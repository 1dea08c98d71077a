"""Time the native ops against the unfold formula in plain PyTorch, in one run.

``python benchmarks/against_formula.py`` prints the median time of each and their ratio. Ratios carry from machine to
machine better than times do.
"""

import statistics
import time
from collections.abc import Callable

import elsa_ext.models
import timm
import torch


def median_time(function: Callable[[], object], repeats: int) -> float:
    """Return the median time of ``repeats`` calls in seconds, after one that does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(name: str, function: Callable[[], object]) -> None:
    """Print one row: native, formula, ratio."""
    native = median_time(function, 9)
    with elsa_ext.use_backend("torch"):
        formula = median_time(function, 3)
    print(f"{name:<52}{native * 1e3:>10.1f} ms{formula * 1e3:>10.1f} ms{formula / native:>8.1f} x", flush=True)


def main() -> None:
    """Run the three comparisons."""
    torch.manual_seed(0)
    kernel_size, heads, channels = 7, 3, 96
    value = torch.randn(8, channels, 56, 56).to(memory_format=torch.channels_last).requires_grad_()
    logits = torch.randn(8, heads * kernel_size**2, 56, 56).to(memory_format=torch.channels_last)
    attn = logits.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2).requires_grad_()
    matrices = [torch.randn(channels, kernel_size, kernel_size, requires_grad=True) for _ in range(2)]
    model = timm.create_model("elsa_swin_tiny").eval()
    images = {batch: torch.randn(batch, 3, 224, 224) for batch in (1, 8)}

    def forward() -> torch.Tensor:
        return elsa_ext.ghost_head(value, attn, *matrices, kernel_size=kernel_size)

    def forward_backward() -> None:
        out = forward()
        torch.autograd.grad(out, (value, attn, *matrices), torch.ones_like(out))

    capability = elsa_ext.build_info()["cpu_capability"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {capability}")
    print(f"{'':<52}{'native':>13}{'formula':>13}{'ratio':>10}")
    with torch.no_grad():
        report("ghost_head forward, (8, 96, 56, 56), K = 7", forward)
    report("ghost_head forward + backward", forward_backward)
    with torch.inference_mode():
        for batch, image in images.items():
            report(f"elsa_swin_tiny inference, ({batch}, 3, 224, 224)", lambda image=image: model(image))


if __name__ == "__main__":
    main()

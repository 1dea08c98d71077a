"""Run every kind of CUDA kernel once on small maps, for compute-sanitizer to watch."""

from typing import Any

import elsa_ext
import torch


def image(channels: int, size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    """Return a random map that wants a gradient."""
    made = torch.randn(2, channels, *size, device="cuda").to(dtype).contiguous(memory_format=layout)
    return made.requires_grad_()


for dtype in (torch.float32, torch.bfloat16, torch.float64):
    for layout in (torch.channels_last, torch.contiguous_format):
        for kernel_size, stride, dilation in ((3, 1, 2), (7, 1, 1), (13, 1, 1), (5, 2, 1)):
            taps, small = (kernel_size, kernel_size), (15 // stride, 17 // stride)
            value, query, key = (image(64, (15, 17), dtype, layout) for _ in range(3))
            mul, add = (torch.randn(64, *taps, device="cuda").to(dtype).requires_grad_() for _ in range(2))
            conv = torch.randn(64, 4, *taps, device="cuda").to(dtype).requires_grad_()
            proj = torch.randn(2 * kernel_size**2, 64, device="cuda").to(dtype).requires_grad_()
            biases = [torch.randn(count, device="cuda").to(dtype).requires_grad_() for count in (64, proj.shape[0])]
            attn = elsa_ext.hadamard_attention(
                query, key, conv, biases[0], proj, biases[1], heads=2, stride=stride, dilation=dilation
            )
            options = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
            out = elsa_ext.ghost_head(value, attn, mul, add, **options)
            assert out.shape[2:] == small
            out.square().sum().backward()
        for border, dilation in (("zeros", 1), ("mask", 1), ("circular", 2), ("shift", 2)):
            query, key, value = (image(80, (15, 17), dtype, layout) for _ in range(3))
            bias = torch.randn(2, 9, 13, device="cuda").to(dtype).requires_grad_()
            local: dict[str, Any] = {"heads": 2, "kernel_size": (5, 7), "dilation": dilation, "border": border}
            for result in (
                elsa_ext.neighborhood_logits(query, key, bias, **local),
                elsa_ext.neighborhood_attention(query, key, value, bias, **local),
            ):
                result.square().nan_to_num(posinf=0.0).sum().backward()
torch.cuda.synchronize()

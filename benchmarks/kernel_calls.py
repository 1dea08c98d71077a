"""The calls whose kernels the tables name: ELSA's ops and neighbourhood attention at a stage of ELSA-Swin-T."""

import elsa_ext
import torch
from kernel_report import KERNEL_SIZE, STAGES, TAPS

# The kernels of a line of the tables, by parts of their names; a pass of several has them all.
KERNELS = {
    "neighborhood_attention forward": ["forward_patch_kernel"],
    "neighborhood_attention backward: statistics": ["statistics_patch_kernel"],
    "neighborhood_attention backward: query, bias": ["outputs_patch_kernel"],
    "neighborhood_attention backward: key and value": ["sources_patch_kernel"],
    "ghost_head forward": ["GatherPlanesTraits<__nv_bfloat16, 7, true, true, false>"],
    "ghost_head backward": ["GatherPlanesTraits<__nv_bfloat16, 7, true, true, true>", "reduce_planes_kernel"],
    "hadamard_attention: convolution, GELU": ["ConvStep)0"],
    "hadamard_attention: softmax": ["SoftmaxTraits<__nv_bfloat16, 7, true, false>"],
    "hadamard_attention backward: softmax": ["SoftmaxTraits<__nv_bfloat16, 7, true, true>"],
    "hadamard_attention backward: convolution, GELU'": ["ConvStep)1"],
    "hadamard_attention backward: query and key": ["ConvStep)2"],
    "hadamard_attention backward: weights": ["weight_gradient_kernel"],
}


def call_ops(stage: int, batch: int, device: str = "cpu", parameters: torch.dtype = torch.bfloat16) -> None:
    """Run the ops forwards and backwards on bfloat16 maps, without ghost_mul, as ELSA-Swin has it."""
    side, channels = STAGES[stage]
    heads, narrow = channels // 32, channels // 3 * 2

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(parameters).requires_grad_()

    def image(count: int) -> torch.Tensor:
        made = torch.randn(batch, count, side, side, device=device).to(torch.bfloat16)
        return made.contiguous(memory_format=torch.channels_last).requires_grad_()

    def backward(out: torch.Tensor) -> None:
        out.backward(torch.randn_like(out))

    add = random(channels, KERNEL_SIZE, KERNEL_SIZE)
    backward(elsa_ext.ghost_head(image(channels), image(heads * TAPS), None, add, kernel_size=KERNEL_SIZE))
    conv = random(narrow, 4, KERNEL_SIZE, KERNEL_SIZE), random(narrow)
    projection = random(heads * TAPS, narrow), random(heads * TAPS)
    backward(elsa_ext.hadamard_attention(image(narrow), image(narrow), *conv, *projection, heads=heads))
    relative = random(heads, 2 * KERNEL_SIZE - 1, 2 * KERNEL_SIZE - 1)
    maps = [image(channels) for _ in range(3)]
    backward(
        elsa_ext.neighborhood_attention(*maps, relative, heads=heads, kernel_size=[KERNEL_SIZE] * 2, border="shift")
    )

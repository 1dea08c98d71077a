"""ELSA and ELSA-Swin written down once more, from the formulas, with none of the package: slow, for small maps."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbours(image: Tensor, kernel_size: int, dilation: int, stride: int) -> Tensor:
    """(B, C, H, W) to (B, C, K², H // stride, W // stride): what each tap sees, zero outside the map."""
    height, width = image.shape[-2:]
    radius = kernel_size // 2 * dilation
    padded = F.pad(image, (radius,) * 4)
    taps = [
        padded[..., dy : dy + height, dx : dx + width][..., ::stride, ::stride]
        for dy in range(0, 2 * radius + 1, dilation)
        for dx in range(0, 2 * radius + 1, dilation)
    ]
    if kernel_size == 1:
        taps = [image[..., ::stride, ::stride]]
    return torch.stack(taps, 2)[..., : height // stride, : width // stride]


def ghost_head(
    value: Tensor, attn: Tensor, mul: Tensor, add: Tensor, kernel_size: int, dilation: int = 1, stride: int = 1
) -> Tensor:
    """Sum over the taps of (mul · attn + add) · value; attn (B, heads·K², …), mul and add (C, K, K) or per sample."""
    channels = value.shape[1]
    maps = attn.unflatten(1, (-1, kernel_size**2))
    maps = maps.repeat_interleave(channels // maps.shape[1], 1)
    weight = mul.flatten(-2)[..., None, None] * maps + add.flatten(-2)[..., None, None]
    return (weight * neighbours(value, kernel_size, dilation, stride)).sum(2)


def elsa(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    *,
    num_heads: int,
    kernel_size: int,
    scale: float,
    lam: float = 1,
    gamma: float = 1,
    dilation: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """ELSA on (B, H, W, C), with the official names of its parameters."""
    conv_weight, proj_weight = parameters["attn.0.weight"], parameters["attn.2.weight"]
    dim_qk = conv_weight.shape[0]
    qkv = F.conv2d(x.movedim(-1, 1), parameters["pre_proj.weight"], parameters.get("pre_proj.bias"))
    query, key, value = qkv[:, :dim_qk], qkv[:, dim_qk : 2 * dim_qk], qkv[:, 2 * dim_qk :]
    product = query * key * scale
    height, width = x.shape[1] // stride, x.shape[2] // stride
    cells = product[..., : height * stride, : width * stride].unflatten(-2, (height, stride))
    product = cells.unflatten(-1, (width, stride)).mean((-3, -1))
    # The KxK convolution, group by group: the taps of a pixel times the kernel.
    width_of_group = conv_weight.shape[1]
    seen = neighbours(product, kernel_size, dilation, 1).unflatten(1, (-1, width_of_group))
    kernels = conv_weight.flatten(2).unflatten(0, (-1, width_of_group))
    hidden = torch.einsum("bgitxy,goit->bgoxy", seen, kernels).flatten(1, 2)
    hidden = F.gelu(hidden + parameters["attn.0.bias"][:, None, None])
    rows = proj_weight.flatten(1).unflatten(0, (groups, -1))
    logits = torch.einsum("bgixy,goi->bgoxy", hidden.unflatten(1, (groups, -1)), rows).flatten(1, 2)
    logits = logits + parameters["attn.2.bias"][:, None, None]
    attn = logits.unflatten(1, (num_heads, -1)).softmax(2).flatten(1, 2)

    none = torch.zeros(value.shape[1], kernel_size, kernel_size, dtype=x.dtype)
    matrices = parameters["ghost_head"].reshape(-1, *none.shape) if "ghost_head" in parameters else None
    mul = matrices[0] if lam else none + 1
    add = gamma * matrices[-1] if gamma else none
    out = ghost_head(value, attn, mul, add, kernel_size, dilation, stride)
    return out.movedim(1, -1) @ parameters["post_proj.weight"].T + parameters["post_proj.bias"]


def block(parameters: Mapping[str, Tensor], x: Tensor, **elsa_settings: float) -> Tensor:
    """An ELSA block on (B, H, W, C), with the official names of its parameters."""
    x = x + elsa(under(parameters, "attn."), norm(under(parameters, "norm1."), x), **elsa_settings)
    return x + mlp(under(parameters, "mlp."), norm(under(parameters, "norm2."), x))


def norm(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Layer normalisation over the last dimension."""
    return F.layer_norm(x, x.shape[-1:], parameters["weight"], parameters["bias"])


def mlp(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The MLP of a block."""
    hidden = F.gelu(x @ parameters["fc1.weight"].T + parameters["fc1.bias"])
    return hidden @ parameters["fc2.weight"].T + parameters["fc2.bias"]


def window_attention(parameters: Mapping[str, Tensor], x: Tensor, num_heads: int) -> Tensor:
    """Attention of all pixels of (B, H, W, C) to all, with the official names, fusion and offsets."""
    batch, height, width, channels = x.shape
    pixels = height * width
    fused = x.reshape(batch, pixels, channels) @ parameters["pre_proj.weight"].T + parameters["pre_proj.bias"]
    value, query, key = fused.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    y, x_ = torch.arange(pixels) // width, torch.arange(pixels) % width
    down, right = y - y[:, None] + height - 1, x_ - x_[:, None] + width - 1  # of a key from its query
    logits = query @ key.mT * (channels // num_heads) ** -0.5 + parameters["rb"][:, down * (2 * width - 1) + right]
    out = (logits.softmax(-1) @ value).transpose(1, 2).reshape(batch, height, width, channels)
    return out @ parameters["post_proj.weight"].T + parameters["post_proj.bias"]


def patch_merging(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, H / 2, W / 2, 2C)."""
    merged = torch.cat([x[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)], -1)
    return norm(under(parameters, "norm."), merged) @ parameters["reduction.weight"].T


def elsa_swin(
    parameters: Mapping[str, Tensor], images: Tensor, *, depths: tuple[int, ...], num_heads: tuple[int, ...]
) -> Tensor:
    """Logits of an official ELSA-Swin whose last stage has one window, with the official names."""
    weight = parameters["patch_embed.proj.weight"]
    x = F.conv2d(images, weight, parameters["patch_embed.proj.bias"], stride=weight.shape[-1]).movedim(1, -1)
    x = norm(under(parameters, "patch_embed.norm."), x)
    last = len(depths) - 1
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        for index in range(depth):
            own = under(parameters, f"layers.{stage}.blocks.{index}.")
            if stage < last:
                size = own["attn.attn.0.weight"].shape[-1]
                x = block(own, x, num_heads=heads, kernel_size=size, scale=1, lam=0)
            else:
                x = x + window_attention(under(own, "attn."), norm(under(own, "norm1."), x), heads)
                x = x + mlp(under(own, "mlp."), norm(under(own, "norm2."), x))
        if stage < last:
            x = patch_merging(under(parameters, f"layers.{stage}.downsample."), x)
    pooled = norm(under(parameters, "norm."), x).mean((1, 2))
    return pooled @ parameters["head.weight"].T + parameters["head.bias"]


def under(parameters: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The parameters whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): p for name, p in parameters.items() if name.startswith(prefix)}

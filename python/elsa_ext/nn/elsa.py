"""ELSA attention and the transformer block around it, with the parameter names of the official code."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ghost_head import ghost_head
from ..ops.hadamard_attention import hadamard_attention
from .block import Block
from .checks import positive
from .fused import computes_attention
from .layers import PointwiseConv2d

# torch.fx records calls of them, instead of looking into tensors that it has not got.
torch.fx.wrap("ghost_head")
torch.fx.wrap("hadamard_attention")


@torch.fx.wrap
def _check_input(x: Tensor, dim: int) -> None:
    if x.ndim != 4 or x.shape[-1] != dim:
        raise ValueError(f"ELSA: the input must have shape (B, H, W, {dim}), got {list(x.shape)}")


class ELSA(nn.Module):
    """Enhanced local self-attention over a channels-last map.

    ``q, k, v = pre_proj(x)``, ``attn = softmax_K²(Conv1x1(GELU(GroupConvKxK(scale · q ⊙ k))))`` and
    ``out = post_proj(Σ_{i,j} (mul_ij^lam · attn_ij + gamma · add_ij) ⊙ v_ij)``, where i, j run over the KxK neighbours
    of a pixel, zero outside the map. The input is (B, H, W, dim), the output (B, H // stride, W // stride, dim), in one
    dtype. The static matrices mul and add are the parameter ``ghost_head``: (2, 1, dim_v, K, K) if both are there,
    (1, dim_v, K, K) if ``lam`` or ``gamma`` is 0, None if both are.

    Every layer is called as a module: hooks, adapters and replacements act on it. Only the layers of ``attn`` have the
    fused op answer for them, and only as long as it computes what they do: see `fused`.

    Args:
        dim: Channels of the input and the output.
        num_heads: Attention maps per pixel; divides ``dim_v``.
        dim_qk: Channels of query and of key, rounded up to a multiple of ``group_width``; None means ``dim // 3 * 2``.
        dim_v: Channels of value; None means ``dim``.
        kernel_size: Side K of the neighbourhood, odd.
        stride: Query, key and attention are on a grid that is coarser by this factor.
        dilation: Step between neighbours.
        qkv_bias: Give ``pre_proj`` a bias.
        qk_scale: Scale of the product of query and key; None or 0 means ``(dim_v // num_heads) ** -0.5``.
        attn_drop: Dropout probability of the attention maps.
        proj_drop: Dropout probability of the output.
        group_width: Channels per group of the KxK convolution.
        groups: Groups of the 1x1 convolution that makes the attention maps.
        lam: 1 to multiply the attention maps by a static matrix, 0 not to.
        gamma: Weight of the static matrix that is added; 0 leaves it out.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: A size is not positive, does not divide what it must, ``kernel_size`` is even, ``lam`` is neither 0
            nor 1, ``gamma`` is not finite, or an input is not (B, H, W, dim).

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """

    ghost_head: nn.Parameter | None

    # For TorchScript, which takes its value at the time of scripting.
    __constants__ = ("fused",)
    __jit_unused_properties__ = ("fused",)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        dim_qk: int | None = None,
        dim_v: int | None = None,
        kernel_size: int = 5,
        stride: int = 1,
        dilation: int = 1,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        group_width: int = 8,
        groups: int = 1,
        lam: int = 1,
        gamma: float = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dim, num_heads = positive("ELSA", "dim", dim), positive("ELSA", "num_heads", num_heads)
        dim_qk, dim_v = positive("ELSA", "dim_qk", dim_qk or dim // 3 * 2), positive("ELSA", "dim_v", dim_v or dim)
        kernel_size, stride = positive("ELSA", "kernel_size", kernel_size), positive("ELSA", "stride", stride)
        dilation, group_width = positive("ELSA", "dilation", dilation), positive("ELSA", "group_width", group_width)
        groups = positive("ELSA", "groups", groups)
        dim_qk = math.ceil(dim_qk / group_width) * group_width
        taps = kernel_size**2
        if kernel_size % 2 == 0:
            raise ValueError(f"ELSA: kernel_size must be odd, got {kernel_size}")
        if dim_v % num_heads:
            raise ValueError(f"ELSA: num_heads must divide dim_v = {dim_v}, got {num_heads}")
        if dim_qk % groups or num_heads * taps % groups:
            raise ValueError(
                f"ELSA: groups must divide dim_qk = {dim_qk} and num_heads * kernel_size² = {num_heads * taps}, "
                f"got {groups}"
            )
        if lam not in (0, 1):
            raise ValueError(f"ELSA: lam must be 0 or 1, got {lam}")
        if not math.isfinite(gamma):
            raise ValueError(f"ELSA: gamma must be finite, got {gamma}")

        self.dim = dim
        self.num_heads = num_heads
        self.dim_qk = dim_qk
        self.dim_v = dim_v
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.scale = float(qk_scale or (dim_v // num_heads) ** -0.5)
        self.group_width = group_width
        self.groups = groups
        self.lam = int(lam)
        self.gamma = float(gamma)

        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.pre_proj = PointwiseConv2d(dim, 2 * dim_qk + dim_v, 1, bias=qkv_bias, **factory)
        padding = kernel_size // 2 * dilation
        conv_groups = dim_qk // group_width
        # Any, for its parts are read by index and TorchScript has no cast.
        self.attn: Any = nn.Sequential(
            nn.Conv2d(dim_qk, dim_qk, kernel_size, padding=padding, dilation=dilation, groups=conv_groups, **factory),
            nn.GELU(),
            nn.Conv2d(dim_qk, num_heads * taps, 1, groups=groups, **factory),
        )
        self.register_parameter("ghost_head", None)
        if lam or gamma:
            shape = (1, dim_v, kernel_size, kernel_size)
            self.ghost_head = nn.Parameter(torch.empty((2, *shape) if lam and gamma else shape, **factory))
        self.attn_drop = nn.Dropout(attn_drop)
        self.post_proj = nn.Linear(dim_v, dim, **factory)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw ``ghost_head`` anew: mul from a normal distribution, add from a truncated one of deviation 0.02."""
        ghost_mul, ghost_add = self._ghost_matrices()
        if ghost_mul is not None:
            nn.init.normal_(ghost_mul)
        if ghost_add is not None:
            nn.init.trunc_normal_(ghost_add, std=0.02)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ELSA":
        """Give ``fn`` four dimensions of ``ghost_head``: ``.to(memory_format=torch.channels_last)`` takes no five."""

        def apply(tensor: Tensor) -> Tensor:
            return fn(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2]) if tensor.ndim == 5 else fn(tensor)

        return super()._apply(apply, recurse)

    def _ghost_matrices(self) -> tuple[Tensor | None, Tensor | None]:
        """View ``ghost_head`` as the matrices mul and add, each (dim_v, K, K) or None."""
        parameter = self.ghost_head  # TorchScript narrows the type of a variable alone
        if parameter is None:
            return None, None
        matrices = parameter.flatten(0, -4)
        return matrices[0] if self.lam else None, matrices[-1] if self.gamma else None

    @property
    def fused(self) -> bool:
        """Whether `elsa_ext.hadamard_attention` answers for the layers of ``attn``, or they are called themselves.

        It answers if they are the layers that were made here, with plain parameters, and without anything that calling
        them would run beside their forward: hooks, parametrizations, a ``forward`` that was put in its place.
        """
        return computes_attention(self.attn, self.num_heads, self.kernel_size, self.dilation, self.groups)

    def _attention(self, query: Tensor, key: Tensor) -> Tensor:
        """Make the attention maps, (B, num_heads·K², H // stride, W // stride)."""
        if self.fused:
            conv, proj = self.attn[0], self.attn[2]
            maps: Tensor = hadamard_attention(
                query,
                key,
                conv.weight,
                conv.bias,
                proj.weight,
                proj.bias,
                heads=self.num_heads,
                scale=self.scale,
                dilation=self.dilation,
                stride=self.stride,
                proj_groups=self.groups,
            )
            return maps
        product = query * key * self.scale
        if self.stride > 1:
            product = F.avg_pool2d(product, self.stride)
        logits: Tensor = self.attn(product)
        return logits.unflatten(1, [self.num_heads, self.kernel_size * self.kernel_size]).softmax(2).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H // stride, W // stride, dim)."""
        _check_input(x, self.dim)
        # Query, key and value are views of one channels-last map, never copies.
        qkv = self.pre_proj(x.permute(0, 3, 1, 2))
        query, key, value = torch.split(qkv, [self.dim_qk, self.dim_qk, self.dim_v], dim=1)
        attn = self._attention(query, key)
        ghost_mul, ghost_add = self._ghost_matrices()
        if ghost_add is not None and self.gamma != 1:
            ghost_add = self.gamma * ghost_add
        out: Tensor = ghost_head(
            value,
            self.attn_drop(attn),
            ghost_mul,
            ghost_add,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            stride=self.stride,
        )
        out = self.proj_drop(self.post_proj(out.permute(0, 2, 3, 1)))
        return out

    def extra_repr(self) -> str:
        """Show the settings that the submodules do not."""
        names = ("dim", "num_heads", "dim_qk", "dim_v", "kernel_size", "stride", "dilation", "scale", "lam", "gamma")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class ELSABlock(Block):
    """Transformer block of ELSA and an MLP, (B, H, W, dim) in and out.

    ``x = x + drop_path(attn(norm1(x)))``, then ``x + drop_path(mlp(norm2(x)))``.

    Args:
        dim: Channels.
        kernel_size: Side K of the neighbourhood, odd.
        stride: Must be 1: the block adds its input to its output.
        num_heads: Attention maps per pixel.
        mlp_ratio: Hidden channels of the MLP, as a multiple of ``dim``.
        drop: Dropout probability of the MLP.
        attn_drop: Dropout probability of the attention maps.
        drop_path: Probability that a sample skips a branch in training.
        act_layer: Makes the activation of the MLP.
        norm_layer: Makes a normalisation, given ``dim``.
        qkv_bias: See `ELSA`.
        qk_scale: See `ELSA`.
        dim_qk: See `ELSA`.
        dim_v: See `ELSA`.
        lam: See `ELSA`.
        gamma: See `ELSA`.
        dilation: See `ELSA`.
        group_width: See `ELSA`.
        groups: See `ELSA`.
        proj_drop: Dropout probability of the output of the attention.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: ``stride`` is not 1, or an argument is not what `ELSA` takes.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        stride: int = 1,
        num_heads: int = 1,
        mlp_ratio: float = 3.0,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        qkv_bias: bool = False,
        qk_scale: float | None = 1,
        dim_qk: int | None = None,
        dim_v: int | None = None,
        lam: int = 1,
        gamma: float = 1,
        dilation: int = 1,
        group_width: int = 8,
        groups: int = 1,
        proj_drop: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if stride != 1:
            raise ValueError(f"ELSABlock: stride must be 1, got {stride}")
        attn = ELSA(
            dim,
            num_heads,
            dim_qk=dim_qk,
            dim_v=dim_v,
            kernel_size=kernel_size,
            dilation=dilation,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            group_width=group_width,
            groups=groups,
            lam=lam,
            gamma=gamma,
            device=device,
            dtype=dtype,
        )
        super().__init__(dim, attn, mlp_ratio, drop, drop_path, act_layer, norm_layer, device, dtype)

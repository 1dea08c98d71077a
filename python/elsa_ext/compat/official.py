"""The function of the official implementation, for code that calls it today."""

from torch import Tensor

from ..ops.ghost_head import ghost_head


def elsa_op(
    features: Tensor,
    ghost_mul: Tensor | None,
    ghost_add: Tensor | None,
    h_attn: Tensor,
    lam: float,
    gamma: float,
    kernel_size: int = 5,
    dilation: int = 1,
    stride: int = 1,
    version: str = "",
) -> Tensor:
    """Apply the ghost head in the layout of the official code, where every head of every sample is one batch entry.

    ``out[b,c,y,x] = Σ_{i,j} (mul[b,c,i,j]^lam · attn[b,i,j,y,x] + gamma · add[b,c,i,j]) · features[b,c,y',x']`` with
    ``y' = stride·y + (i - K//2)·dilation``, ``x'`` alike, and zero outside the map.

    Args:
        features: (B·heads, C/heads, H, W).
        ghost_mul: (B·heads, C/heads, K, K); unused, and may be None, if ``lam`` is 0.
        ghost_add: (B·heads, C/heads, K, K); unused, and may be None, if ``gamma`` is 0.
        h_attn: (B·heads, K², H // stride, W // stride), normalised attention.
        lam: Exponent of ``ghost_mul``.
        gamma: Factor of ``ghost_add``.
        kernel_size: K, odd.
        dilation: Step between neighbours.
        stride: Step between output pixels.
        version: Unused. It chose between two CUDA kernels of the official code.

    Returns:
        (B·heads, C/heads, H // stride, W // stride), in the dtype of ``features``, one of float64, float32,
        bfloat16 and float16.

    Raises:
        ValueError: ``h_attn`` has other than K² channels, ``ghost_mul`` is None although ``lam`` is not 0, or
            ``ghost_add`` is None although ``gamma`` is not 0.
        RuntimeError: A shape or dtype is not what `elsa_ext.ghost_head` takes.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """
    # The op would take a multiple of K² channels as several heads.
    if h_attn.ndim != 4 or h_attn.shape[1] != kernel_size**2:
        raise ValueError(
            f"elsa_op: h_attn must have shape (B·heads, kernel_size² = {kernel_size**2}, H // stride, W // stride), "
            f"got {tuple(h_attn.shape)}"
        )
    mul = None if lam == 0 else _given(ghost_mul, "ghost_mul", "lam") ** lam
    add = None if gamma == 0 else _given(ghost_add, "ghost_add", "gamma") * gamma
    return ghost_head(features, h_attn, mul, add, kernel_size=kernel_size, dilation=dilation, stride=stride)


def _given(matrix: Tensor | None, name: str, factor: str) -> Tensor:
    if matrix is None:
        raise ValueError(f"elsa_op: {name} must be a tensor when {factor} is not 0, got None")
    return matrix

"""``nn.ELSABlock``: names and numbers of the official block, and stochastic depth."""

import inspect
from functools import partial
from typing import Any

import pytest
import restated
import torch
from elsa_ext.nn import ELSABlock
from elsa_ext.nn.layers import DropPath
from golden import assert_agrees
from torch import nn


def test_formula(backend: Any) -> None:
    block = ELSABlock(12, 7, num_heads=3, lam=0, qkv_bias=True, group_width=4, dtype=torch.float64)
    parameters = {name: p.detach().clone() for name, p in block.named_parameters()}
    x = torch.randn(2, 5, 6, 12, dtype=torch.float64)
    expected = restated.block(parameters, x, num_heads=3, kernel_size=7, scale=1, lam=0)
    block.to(backend.device)
    assert_agrees("out", block(x.to(backend.device)), expected)


def test_official_names_and_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in ELSABlock(12, 5).named_parameters() if "attn." not in name}
    assert shapes == {
        "norm1.weight": (12,),
        "norm1.bias": (12,),
        "norm2.weight": (12,),
        "norm2.bias": (12,),
        "mlp.fc1.weight": (36, 12),
        "mlp.fc1.bias": (36,),
        "mlp.fc2.weight": (12, 36),
        "mlp.fc2.bias": (12,),
    }


def test_official_arguments() -> None:
    parameters = inspect.signature(ELSABlock).parameters
    assert {name: p.default for name, p in list(parameters.items())[2:19]} == {
        "stride": 1,
        "num_heads": 1,
        "mlp_ratio": 3.0,
        "drop": 0.0,
        "attn_drop": 0.0,
        "drop_path": 0.0,
        "act_layer": nn.GELU,
        "norm_layer": nn.LayerNorm,
        "qkv_bias": False,
        "qk_scale": 1,
        "dim_qk": None,
        "dim_v": None,
        "lam": 1,
        "gamma": 1,
        "dilation": 1,
        "group_width": 8,
        "groups": 1,
    }


def test_arguments_reach_their_place() -> None:
    block = ELSABlock(
        12,
        3,
        num_heads=2,
        mlp_ratio=2,
        drop=0.1,
        attn_drop=0.2,
        drop_path=0.3,
        act_layer=nn.ReLU,
        norm_layer=partial(nn.LayerNorm, eps=0.5),
        qkv_bias=True,
        qk_scale=0.25,
        dim_qk=10,
        dim_v=16,
        lam=0,
        gamma=2.0,
        dilation=3,
        group_width=5,
        groups=2,
        proj_drop=0.4,
    )
    attn = block.attn
    assert (attn.num_heads, attn.dim_qk, attn.dim_v, attn.kernel_size, attn.dilation) == (2, 10, 16, 3, 3)
    assert (attn.scale, attn.lam, attn.gamma, attn.groups) == (0.25, 0, 2.0, 2)
    assert attn.attn[0].weight.shape[1] == 5
    assert attn.pre_proj.bias is not None
    assert (block.mlp.drop.p, attn.attn_drop.p, block.drop_path.p, attn.proj_drop.p) == (0.1, 0.2, 0.3, 0.4)
    assert isinstance(block.mlp.act, nn.ReLU)
    assert block.norm1.eps == block.norm2.eps == 0.5
    assert block.mlp.fc1.out_features == 24


def test_norm_layer_needs_no_factory_arguments() -> None:
    block = ELSABlock(12, 3, norm_layer=lambda dim: nn.LayerNorm(dim), device="meta", dtype=torch.float16)
    assert {(p.device.type, p.dtype) for p in block.parameters()} == {("meta", torch.float16)}


def test_stride_is_rejected() -> None:
    with pytest.raises(ValueError, match="ELSABlock: stride must be 1, got 2"):
        ELSABlock(12, 3, stride=2)


def test_drop_path_drops_whole_samples() -> None:
    drop_path = DropPath(0.25)
    x = torch.rand(4000, 2, 3) + 1
    out = drop_path(x)
    dropped = (out == 0).all((1, 2))
    assert torch.equal(dropped, (out == 0).any(2).any(1))
    assert torch.allclose(out[~dropped], x[~dropped] / 0.75)
    assert 0.22 < float(dropped.float().mean()) < 0.28
    assert torch.equal(drop_path.eval()(x), x)
    assert drop_path(x[:0]).shape == (0, 2, 3)


def test_drop_path_of_one_skips_both_branches() -> None:
    block = ELSABlock(12, 3, drop_path=1.0)
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_drop_path_bad_probability() -> None:
    with pytest.raises(ValueError, match=r"DropPath: p must be in \[0, 1\], got 1.5"):
        DropPath(1.5)

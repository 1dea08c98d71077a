"""The modules of ``compat.natten``: parameters and results of natten's, and the constructors of every generation."""

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compat.natten_rule import attend
from elsa_ext.compat import natten
from elsa_ext.nn import NeighborhoodAttention
from golden import assert_agrees
from torch import Tensor, nn

DOUBLE = {"dtype": torch.float64}
Install = Callable[[str], ModuleType]


def forward(module: Any, x: Tensor, sizes: list[tuple[int, int, int, bool]]) -> Tensor:
    """What natten's modules compute, by NATTEN's rule and the parameters of ``module``; ``x`` is a map."""
    query, key, value = module.qkv(x).unflatten(-1, (3, module.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)
    rpb = module.rpb if module.rpb is None or module.rpb.ndim == 3 else module.rpb.unsqueeze(1)
    _, out = attend(query, key, value, rpb, sizes, module.scale)
    return module.proj(out.permute(0, 2, 3, 1, 4).flatten(3)).detach()


@pytest.mark.parametrize(
    ("options", "size", "sizes"),
    [
        ({"kernel_size": 5}, (9, 8), [(5, 1, 1, False)] * 2),
        ({"kernel_size": 3, "dilation": 2, "rel_pos_bias": True}, (9, 8), [(3, 2, 1, False)] * 2),
        (
            {"kernel_size": (3, 4), "stride": (1, 2), "is_causal": (True, False)},
            (9, 8),
            [(3, 1, 1, True), (4, 1, 2, False)],
        ),
        ({"kernel_size": 7, "bias": True, "qk_scale": 0.7, "qkv_bias": False}, (9, 8), [(7, 1, 1, False)] * 2),
    ],
    ids=str,
)
def test_maps(options: dict[str, Any], size: tuple[int, int], sizes: list[Any]) -> None:
    module = natten.NeighborhoodAttention2D(12, 3, **options).double()
    assert (module.rpb is None) == ("rel_pos_bias" not in options and "bias" not in options)
    x = torch.randn(2, *size, 12, **DOUBLE)
    assert_agrees("out", module(x), forward(module, x, sizes))


@pytest.mark.parametrize("kernel_size", [5, (5,)])
def test_sequences(kernel_size: Any) -> None:
    module = natten.NeighborhoodAttention1D(12, 3, kernel_size, dilation=3, rel_pos_bias=True).double()
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "rpb": (3, 9),
        "qkv.weight": (36, 12),
        "qkv.bias": (36,),
        "proj.weight": (12, 12),
        "proj.bias": (12,),
    }
    x = torch.randn(2, 17, 12, **DOUBLE)
    expected = forward(module, x.unsqueeze(1), [(1, 1, 1, False), (5, 3, 1, False)]).squeeze(1)
    assert_agrees("out", module(x), expected)


@pytest.mark.parametrize("size", [(3, 9), (5, 4), (1, 1)])
def test_zeros_fill_up_small_maps_as_in_natten_014(size: tuple[int, int]) -> None:
    module = natten.NeighborhoodAttention2D(12, 3, 3, dilation=2, bias=True).double()
    x = torch.randn(2, *size, 12, **DOUBLE)
    padded = F.pad(x, (0, 0, 0, max(0, 6 - size[1]), 0, max(0, 6 - size[0])))
    expected = forward(module, padded, [(3, 2, 1, False)] * 2)[:, : size[0], : size[1]]
    assert_agrees("out", module(x), expected)
    short = natten.NeighborhoodAttention1D(12, 3, 7).double()
    row = torch.randn(2, 4, 12, **DOUBLE)
    assert_agrees("sequence", short(row), short(F.pad(row, (0, 0, 0, 3)))[:, :4].detach())


def test_rates_of_dropout() -> None:
    module = natten.NeighborhoodAttention2D(12, 3, 3, attn_drop=0.1, proj_drop=0.2)
    assert (module.attn_drop.p, module.proj_drop.p) == (0.1, 0.2) and isinstance(module, NeighborhoodAttention)


def test_constructor_of_014(as_natten: Install) -> None:
    package = as_natten("0.14")
    assert package.__version__ == "0.14.6"
    plain = package.NeighborhoodAttention2D(12, 3, 7)
    assert plain.rpb.shape == (3, 13, 13)  # there unless told not to
    module = package.NeighborhoodAttention2D(12, 3, 7, 2, False, False, 0.5, 0.1, 0.2)
    assert module.rpb is None and module.qkv.bias is None
    assert (module.scale, module.attn_drop.p, module.proj_drop.p) == (0.5, 0.1, 0.2)
    assert (module.kernel_size, module.dilation, module.window_size) == (7, 2, 14)
    assert package.NeighborhoodAttention2D(12, 3, 7, rel_pos_bias=False).rpb is None
    assert package.NeighborhoodAttention1D(dim=12, num_heads=3, kernel_size=7).rpb.shape == (3, 13)


def test_constructor_of_017(as_natten: Install) -> None:
    package = as_natten("0.17")
    assert package.__version__ == natten.__version__ == "0.17.4"
    assert package.NeighborhoodAttention2D(12, 3, 7).rpb is None
    module = package.NeighborhoodAttention1D(12, 3, 7, 2, True, True, False, 0.5, 0.1, 0.2, False)
    assert module.rpb.shape == (3, 13) and module.qkv.bias is None and module.is_causal == (True,)
    assert (module.kernel_size, module.dilation, module.scale) == ((7,), (2,), 0.5)
    assert (module.attn_drop.p, module.attn_drop_rate, module.proj_drop.p) == (0.1, 0.1, 0.2)


def test_constructor_of_021(as_natten: Install) -> None:
    package = as_natten("0.21")
    assert package.__version__ == "0.21.6"
    for module in (
        package.NeighborhoodAttention2D(12, 3, 7, 2, 3, True, False, 0.5, 0.2),
        package.NeighborhoodAttention2D(
            embed_dim=12,
            num_heads=3,
            kernel_size=7,
            stride=2,
            dilation=3,
            is_causal=True,
            qkv_bias=False,
            qk_scale=0.5,
            proj_drop=0.2,
        ),
    ):
        assert module.rpb is None and module.qkv.bias is None and module.is_causal == (True, True)
        assert (module.kernel_size, module.stride, module.dilation) == ((7, 7), (2, 2), (3, 3))
        assert (module.scale, module.proj_drop.p, module.embed_dim, module.na_dim) == (0.5, 0.2, 12, 2)


def test_constructor_of_0144(as_natten: Install) -> None:
    package = as_natten("0.14.4")
    assert package.__version__ == "0.14.4" and package.NeighborhoodAttention is package.NeighborhoodAttention2D
    module = package.NeighborhoodAttention(12, 7, 3, False, 0.5, 0.1, 0.2, 2)
    assert module.rpb.shape == (3, 13, 13) and module.qkv.bias is None
    assert (module.scale, module.attn_drop.p, module.proj_drop.p, module.dilation) == (0.5, 0.1, 0.2, 2)


def test_functions_by_position(as_natten: Install) -> None:
    query, key, value = torch.randn(3, 2, 9, 8, 3, 4)
    rpb = torch.randn(3, 5, 5)
    na2d = as_natten("0.17").functional.na2d
    expected = natten.na2d(query, key, value, 3, dilation=2, rpb=rpb, scale=0.3)
    assert torch.equal(na2d(query, key, value, 3, 2, False, rpb, 0.3), expected)
    with pytest.raises(TypeError, match="na2d got dilation twice"):
        na2d(query, key, value, 3, 2, dilation=2)
    with pytest.raises(TypeError, match="na2d takes 11 arguments by position, got 12"):
        na2d(*range(12))


def test_functions_by_position_021(as_natten: Install) -> None:
    query, key, value = torch.randn(3, 2, 9, 3, 4)
    expected = natten.na1d(query, key, value, 5, stride=2, is_causal=True, scale=0.3)
    assert torch.equal(as_natten("0.21").na1d(query, key, value, 5, 2, 1, True, 0.3), expected)


def test_a_module_is_saved_and_loaded(as_natten: Install) -> None:
    module = as_natten("0.17").NeighborhoodAttention2D(12, 3, 7, 1, False, True)
    x = torch.randn(1, 8, 8, 12)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


@pytest.mark.parametrize("version", ["0.14", "0.17", "0.21"])
def test_settings_may_be_changed_and_shown(as_natten: Install, version: str) -> None:
    module = as_natten(version).NeighborhoodAttention2D(12, 3, 3).double()
    module.rpb = None
    module.kernel_size, module.dilation = (5, 3), (1, 2)
    module.stride, module.is_causal = (1, 3), (True, False)
    x = torch.randn(2, 9, 8, 12, **DOUBLE)
    assert_agrees("out", module(x), forward(module, x, [(5, 1, 1, True), (3, 2, 3, False)]))
    shown = "head_dim=4, num_heads=3, kernel_size=(5, 3), stride=(1, 3), dilation=(1, 2), is_causal=(True, False)"
    assert module.extra_repr() == f"{shown}, has_bias=False"


def test_a_forward_of_somebody_elses(as_natten: Install) -> None:
    """Which goes by the attributes of natten 0.14, and so do copies of its own."""
    package = as_natten("0.14")

    class Mine(package.NeighborhoodAttention2D):
        def forward(self, x: Tensor) -> Tensor:
            if min(x.shape[1:3]) < self.window_size:
                raise ValueError("small")
            qkv = self.qkv(x).reshape(*x.shape[:3], 3, self.num_heads, self.head_dim).permute(3, 0, 4, 1, 2, 5)
            query, key, value = qkv[0] * self.scale, qkv[1], qkv[2]
            attn = package.functional.natten2dqkrpb(query, key, self.rpb, self.kernel_size, self.dilation)
            out = package.functional.natten2dav(attn.softmax(-1), value, self.kernel_size, self.dilation)
            return self.proj(out.permute(0, 2, 3, 1, 4).flatten(3))

    module = Mine(12, 3, 3, 2).double()
    x = torch.randn(2, 9, 8, 12, **DOUBLE)
    assert_agrees("out", module(x), package.NeighborhoodAttention2D.forward(module, x).detach())


def test_a_class_of_somebody_elses(as_natten: Install) -> None:
    """As people derive from natten's modules."""

    class Mine(as_natten("0.14").NeighborhoodAttention2D):
        def __init__(self, dim: int) -> None:
            super().__init__(dim, 3, kernel_size=3, dilation=2)
            self.extra = nn.Linear(dim, dim)

    module = Mine(12)
    assert module.rpb is not None and module.extra(module(torch.randn(1, 8, 8, 12))).shape == (1, 8, 8, 12)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="NeighborhoodAttention2D takes what follows kernel_size by name"):
        natten.NeighborhoodAttention2D(12, 3, 7, 2)
    with pytest.raises(ValueError, match=r"2D: kernel_size must be one for all axes or 2, got \(7,\)"):
        natten.NeighborhoodAttention2D(12, 3, (7,))
    with pytest.raises(ValueError, match="NeighborhoodAttention: dilation must be a positive integer, got 0"):
        natten.NeighborhoodAttention2D(12, 3, 7, dilation=0)
    with pytest.raises(TypeError, match="tau"):
        natten.NeighborhoodAttention2D(12, 3, 7, tau=2)
    with pytest.raises(ValueError, match="NeighborhoodAttention: dim must be a positive integer, got 0"):
        natten.NeighborhoodAttention2D(num_heads=3, kernel_size=7)

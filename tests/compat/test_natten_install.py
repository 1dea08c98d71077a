"""``compat.natten.install``: what is found then, and that it hides nothing."""

import importlib
import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from elsa_ext.compat import natten
from elsa_ext.compat.natten import context, functional
from elsa_ext.ops.registration import OPS

Install = Callable[[str], ModuleType]


@pytest.mark.parametrize("version", ["0.14.4", "0.14", "0.17", "0.21"])
def test_what_is_imported(as_natten: Install, version: str) -> None:
    package = as_natten(version)
    assert importlib.util.find_spec("natten") is package.__spec__
    assert importlib.metadata.version("natten") == importlib.metadata.version("NATTEN") == package.__version__
    assert "natten" in {distribution.name for distribution in importlib.metadata.distributions()}
    for name in functional.__all__:
        assert callable(getattr(package.functional, name))
    for name in context.__all__:
        assert getattr(package, name) is getattr(context, name) is getattr(package.context, name)
    for axes in (1, 2, 3):
        assert isinstance(getattr(package, f"NeighborhoodAttention{axes}D"), type)


def test_names_of_each_generation(as_natten: Install) -> None:
    as_natten("0.17")
    from natten.functional import (
        na1d_av,
        na1d_qk,
        na2d_av,
        na2d_qk,
        natten1dav,
        natten1dqkrpb,
        natten2dav,
        natten2dqkrpb,
    )
    from natten.na2d import NeighborhoodAttention2D
    from natten.natten1d import NeighborhoodAttention1D

    assert (natten2dqkrpb, natten2dav) == (natten.natten2dqkrpb, natten.natten2dav)
    assert (natten1dqkrpb, natten1dav) == (natten.natten1dqkrpb, natten.natten1dav)
    assert (na1d_qk, na1d_av, na2d_qk, na2d_av) == (natten.na1d_qk, natten.na1d_av, natten.na2d_qk, natten.na2d_av)
    assert issubclass(NeighborhoodAttention2D, natten.NeighborhoodAttention2D)
    assert issubclass(NeighborhoodAttention1D, natten.NeighborhoodAttention1D)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'natten\.backends'"):
        importlib.import_module("natten.backends")


def test_what_copies_of_nattens_modules_import(as_natten: Install) -> None:
    as_natten("0.17")
    from natten.context import is_fna_enabled
    from natten.experimental import na2d
    from natten.functional import na2d as the_same
    from natten.types import CausalArg2DTypeOrDed, Dimension1DType
    from natten.utils import check_all_args, log
    from natten.utils.checks import check_kernel_size_arg, get_num_na_weights

    assert callable(is_fna_enabled) and na2d is the_same and log.get_logger("natten.mine").name == "natten.mine"
    assert (Dimension1DType, CausalArg2DTypeOrDed) == (tuple[int], bool | tuple[bool, bool])
    assert check_all_args(2, 7, None, [True, False]) == ((7, 7), (1, 1), (True, False))
    assert get_num_na_weights(check_kernel_size_arg(2, (3, 5))) == 15
    with pytest.raises(ValueError, match=r"kernel_size must be one for all axes or 1, got \(3, 5\)"):
        check_all_args(1, (3, 5), 1, False)


def test_counts_for_fvcore(as_natten: Install) -> None:
    as_natten("0.14")
    from natten.flops import add_natten_handle, qk_2d_rpb_flop

    class Counter:
        def set_op_handle(self, **handles: object) -> set[str]:
            return set(handles)

    assert add_natten_handle(Counter()) == {f"elsa::{name}" for name in OPS}
    with pytest.raises(NotImplementedError, match="qk_2d_rpb_flop is not there"):
        qk_2d_rpb_flop([], [])


def test_functions_that_were_classes(as_natten: Install) -> None:
    as_natten("0.14")
    from natten.functional import NATTEN1DAVFunction, NATTEN2DQKRPBFunction

    query, rpb = torch.randn(1, 2, 7, 8, 4), torch.randn(2, 5, 5)
    logits = NATTEN2DQKRPBFunction.apply(query, query, rpb, 3, 2)
    assert torch.equal(logits, natten.natten2dqkrpb(query, query, rpb, 3, 2))
    attn, value = torch.rand(1, 2, 9, 3), torch.randn(1, 2, 9, 4)
    assert torch.equal(NATTEN1DAVFunction.apply(attn, value, 3, 2), natten.natten1dav(attn, value, 3, 2))


def test_functions_without_a_kernel_size(as_natten: Install) -> None:
    functional = as_natten("0.14.4").functional
    query, rpb = torch.randn(1, 2, 7, 8, 4), torch.randn(2, 5, 5)
    attn = functional.natten2dqkrpb(query, query, rpb, 2)
    assert torch.equal(attn, natten.natten2dqkrpb(query, query, rpb, 3, 2))
    assert torch.equal(functional.NATTEN2DAVFunction.apply(attn, query, 2), natten.natten2dav(attn, query, 3, 2))
    row, rpb = query.flatten(2, 3), torch.randn(2, 9)
    attn = functional.natten1dqkrpb(row, row, rpb, 3)
    assert torch.equal(attn, natten.natten1dqkrpb(row, row, rpb, 5, 3))
    assert torch.equal(functional.natten1dav(attn, row, 3), natten.natten1dav(attn, row, 5, 3))


def test_names_of_021(as_natten: Install) -> None:
    as_natten("0.21")
    from natten import NeighborhoodAttention2D, attention, na1d, na2d, na3d
    from natten.functional import neighborhood_attention_generic
    from natten.modules import NeighborhoodAttention2D as the_same
    from natten.types import CausalArgTypeOrDed, DimensionTypeOrDed
    from natten.utils.checks import check_all_args

    assert NeighborhoodAttention2D is the_same
    assert na1d.__doc__ == natten.na1d.__doc__ and na2d.__name__ == "na2d"
    assert (na3d, attention) == (natten.na3d, natten.attention)
    assert (DimensionTypeOrDed, CausalArgTypeOrDed) == (int | tuple[int, ...], bool | tuple[bool, ...])
    assert check_all_args(1, (7,), 2, 3, None) == ((7,), (2,), (3,), (False,))
    for tensor, function in ((torch.randn(1, 9, 2, 4), na1d), (torch.randn(1, 9, 9, 2, 4), na2d)):
        out = neighborhood_attention_generic(tensor, tensor, tensor, 3, 2, 3)
        assert torch.equal(out, function(tensor, tensor, tensor, 3, stride=2, dilation=3))
    with pytest.raises(NotImplementedError, match="na3d is not there"):
        neighborhood_attention_generic(*[torch.randn(1, 5, 5, 5, 2, 4)] * 3, 3)


def test_it_says_so_once(as_natten: Install, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "elsa_ext"):
        as_natten("0.17")
        natten.install()
    messages = ["no natten is installed: elsa_ext.compat.natten answers for it, as natten 0.17.4"]
    assert [record.getMessage() for record in caplog.records] == messages
    with pytest.raises(ValueError, match=r"install: version must be 0\.17 as before, got 0\.21"):
        natten.install("0.21")
    with pytest.raises(ValueError, match=r"install: version must be one of 0\.14\.4, 0\.14, 0\.17, 0\.21, got '0\.20'"):
        natten.install("0.20")


def test_an_installed_one_is_not_hidden(as_natten: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "natten.py").write_text("mine = True")
    before = list(sys.meta_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"install: a natten is installed in .*natten\.py, and is not hidden"):
        natten.install()
    assert sys.meta_path == before
    assert importlib.import_module("natten").mine
    with pytest.raises(ImportError, match=r"install: a natten is installed in .*natten\.py"):
        natten.install()


def test_one_that_is_installed_later_is_found_first(
    as_natten: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    natten.install()
    (tmp_path / "natten.py").write_text("mine = True")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("natten").mine


def test_switches_are_kept() -> None:
    natten.use_fused_na(True, kv_parallel=False)
    assert natten.is_fna_enabled() and natten.is_fused_na_enabled()
    natten.use_fna(False)
    assert not natten.is_fused_na_enabled()
    natten.use_flex_attention()
    assert natten.is_fused_na_enabled()
    natten.use_fna(False)
    natten.set_memory_usage_preference("strict")
    assert natten.is_memory_usage_strict() and not natten.is_memory_usage_default()
    natten.set_memory_usage_preference()
    assert natten.is_memory_usage_default() and not natten.is_memory_usage_unrestricted()
    with pytest.raises(ValueError, match="pref must be one of default, strict, unrestricted, got 'none'"):
        natten.set_memory_usage_preference("none")
    natten.use_autotuner(forward_pass=True)
    assert not natten.is_autotuner_enabled()
    assert natten.enable_tf32() and not natten.disable_tf32() and not natten.is_tf32_in_gemm_na_enabled()
    assert natten.has_fused_na() and natten.has_half() and natten.has_bfloat(0) and not natten.has_gemm()


PROGRAM = """
import warnings
import elsa_ext
elsa_ext.compat.natten.install()
import natten
from natten.functional import natten2dav, natten2dqkrpb
import torch
attn = natten2dqkrpb(torch.zeros(1, 2, 9, 9, 4), torch.zeros(1, 2, 9, 9, 4), torch.zeros(2, 13, 13), 7, 1)
assert natten2dav(attn.softmax(-1), torch.ones(1, 2, 9, 9, 4), 7, 1).allclose(torch.ones(()))
assert natten.has_cuda() in (False, True)
"""


@pytest.mark.thorough
@pytest.mark.skipif(importlib.util.find_spec("natten") is not None, reason="a natten is installed")
def test_a_program_whose_warnings_are_errors() -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "elsa_ext.compat.natten answers for it" in process.stderr

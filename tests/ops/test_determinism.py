"""The same bits from every run, thread count and thread, the same numbers from every instruction set."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ops.backends import Backend
from ops.cases import Case, GhostHead, HadamardAttention, channels_last, make, make_grad
from ops.checks import evaluate

CASES = [
    GhostHead(batch=3, channels=40, heads=5, kernel_size=7, height=23, width=19),
    GhostHead(batch=1, channels=33, heads=3, kernel_size=3, height=31, width=29, stride=2),
    GhostHead(batch=5, channels=8, heads=8, kernel_size=5, height=9, width=9, mul="sample", add="sample"),
    GhostHead(batch=1, channels=3, heads=1, kernel_size=5, height=40, width=37, mul="none"),
    HadamardAttention(batch=3, channels=24, groups=6, heads=3, kernel_size=7, height=13, width=11),
    HadamardAttention(batch=2, channels=12, heads=2, kernel_size=3, height=33, width=21, stride=2),
]
DTYPES = (torch.float32, torch.bfloat16)


def results(case: Case, dtype: torch.dtype, device: str, layout: str) -> dict[str, torch.Tensor]:
    """The result and every gradient of ``case``."""
    layouts = channels_last(case) if layout == "channels_last" else {}
    return evaluate(case, make(case, dtype, device, layouts=layouts), make_grad(case, dtype, device))


def assert_same_bits(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], when: str) -> None:
    """Assert that two results of one case are the same to the last bit."""
    for name, result in actual.items():
        assert torch.equal(result, expected[name]), f"{name} differs {when}"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_runs_give_the_same_bits(native: Backend, case: Case, dtype: torch.dtype, layout: str) -> None:
    expected = results(case, dtype, native.device, layout)
    for _ in range(3):
        assert_same_bits(results(case, dtype, native.device, layout), expected, "from run to run")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_number_of_threads_gives_the_same_bits(case: Case, dtype: torch.dtype, layout: str) -> None:
    torch.set_num_threads(1)
    expected = results(case, dtype, "cpu", layout)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        assert_same_bits(results(case, dtype, "cpu", layout), expected, f"with {count} threads")


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    expected = [results(case, torch.float32, "cpu", "channels_last") for case in CASES]
    with ThreadPoolExecutor(4) as pool:
        rounds = list(pool.map(lambda case: results(case, torch.float32, "cpu", "channels_last"), CASES * 4))
    for index, actual in enumerate(rounds):
        assert_same_bits(actual, expected[index % len(CASES)], "among concurrent calls")


CAPABILITIES = ("baseline", "avx2", "avx512")
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from ops.cases import DTYPES, GhostHead, HadamardAttention, channels_last
from ops.checks import check, check_conversions
import elsa_ext
print(elsa_ext.build_info()["cpu_capability"])
for case in [
    GhostHead(),
    GhostHead(channels=40, heads=5, kernel_size=7, width=19),
    GhostHead(channels=64, heads=2, kernel_size=7, height=9, width=21, mul="sample"),
    GhostHead(channels=33, heads=3, kernel_size=5, width=17, stride=2, dilation=2),
    GhostHead(channels=131, heads=1, kernel_size=3, height=3, width=35, mul="none"),
    GhostHead(channels=7, heads=7, kernel_size=13, height=5, width=4, add="none"),
    GhostHead(channels=5, heads=1, kernel_size=1, stride=3),
    HadamardAttention(channels=12, kernel_size=5),
]:
    for dtype in DTYPES:
        for layouts in ({}, channels_last(case)):
            check(case, "cpu", dtype, layouts=layouts)
        if dtype.itemsize == 2:
            check_conversions(dtype, "cpu")
            check(case, "cpu", dtype, torch.float32)
"""


def run(code: str, capability: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter that is told to use the instruction set ``capability``."""
    environment = {name: value for name, value in os.environ.items() if name != "ELSA_CPU_CAPABILITY"}
    if capability is not None:
        environment["ELSA_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def best_capability() -> str:
    """The widest instruction set of this machine that there are kernels for."""
    return {"AVX2": "avx2", "AVX512": "avx512"}.get(torch.backends.cpu.get_cpu_capability(), "baseline")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_instruction_set_agrees_with_the_oracle(capability: str) -> None:
    if CAPABILITIES.index(capability) > CAPABILITIES.index(best_capability()):
        pytest.skip(f"this machine has no {capability}")
    child = run(CHILD, capability, str(Path(__file__).parents[1]))
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [capability]


def test_the_best_instruction_set_is_chosen() -> None:
    child = run("import elsa_ext; print(elsa_ext.build_info()['cpu_capability'])", None)
    assert (child.returncode, child.stdout.strip()) == (0, best_capability()), child.stderr


def test_an_unknown_instruction_set_is_an_error() -> None:
    child = run("import elsa_ext, torch; elsa_ext.ghost_head(*torch.ones(2, 1, 1, 1, 1), kernel_size=1)", "sse9")
    assert child.returncode == 1
    message = child.stderr.strip().splitlines()[-1]
    assert "ELSA_CPU_CAPABILITY" in message and "sse9" in message
    assert all(capability in message for capability in CAPABILITIES)


def test_offsets_of_more_than_32_bits() -> None:
    """The second sample begins 2³¹ elements after the first: address space that nothing else touches."""
    case = GhostHead(channels=8, kernel_size=3)
    tensors = make(case, torch.float32)
    grad = make_grad(case, torch.float32)
    expected = evaluate(case, tensors, grad)
    far = {name: spread(tensors[name]) for name in ("value", "attn")}
    assert far["value"].stride(0) > 2**31
    assert_same_bits(evaluate(case, {**tensors, **far}, spread(grad)), expected, "when samples lie far apart")


def spread(tensor: torch.Tensor) -> torch.Tensor:
    """A channels_last copy of ``tensor`` whose samples lie more than 2³¹ elements apart."""
    batch, channels, height, width = tensor.shape
    apart = 2**31 + 64
    store = torch.empty((batch - 1) * apart + channels * height * width, dtype=tensor.dtype)
    strides = (apart, 1, width * channels, channels)
    return store.as_strided(tensor.shape, strides).copy_(tensor)

"""The same bits from every run, thread count and thread, the same numbers from every instruction set."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from ops.backends import CAPABILITIES, Backend
from ops.cases import Case, make, make_grad
from ops.checks import evaluate
from ops.ghost_head_cases import GhostHead
from ops.pairwise import pairwise
from ops.registry import every

CALLS = pairwise(every("kernels"), [torch.float32, torch.bfloat16], ["contiguous", "channels_last"])


def results(case: Case, dtype: torch.dtype, device: str, layout: str) -> dict[str, torch.Tensor]:
    """The result and every gradient of ``case``."""
    return evaluate(case, make(case, dtype, device, layouts=case.laid_out(layout)), make_grad(case, dtype, device))


def assert_same_bits(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], when: str) -> None:
    """Assert that two results of one case are the same to the last bit."""
    for name, result in actual.items():
        assert torch.equal(result, expected[name]), f"{name} differs {when}"


@pytest.mark.parametrize(("case", "dtype", "layout"), CALLS, ids=str)
def test_two_runs_give_the_same_bits(hardware: Backend, case: Case, dtype: torch.dtype, layout: str) -> None:
    expected = results(case, dtype, hardware.device, layout)
    for _ in range(3):
        assert_same_bits(results(case, dtype, hardware.device, layout), expected, "from run to run")


@pytest.mark.parametrize(("case", "dtype", "layout"), CALLS, ids=str)
def test_any_number_of_threads_gives_the_same_bits(case: Case, dtype: torch.dtype, layout: str) -> None:
    torch.set_num_threads(1)
    expected = results(case, dtype, "cpu", layout)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        assert_same_bits(results(case, dtype, "cpu", layout), expected, f"with {count} threads")


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    cases = every("kernels")
    expected = [results(case, torch.float32, "cpu", "channels_last") for case in cases]
    with ThreadPoolExecutor(4) as pool:
        rounds = list(pool.map(lambda case: results(case, torch.float32, "cpu", "channels_last"), cases * 4))
    for index, actual in enumerate(rounds):
        assert_same_bits(actual, expected[index % len(cases)], "among concurrent calls")


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from ops.cases import DTYPES
from ops.checks import check, check_conversions
from ops.pairwise import pairwise
from ops.registry import OPS
import elsa_ext
print(elsa_ext.build_info()["cpu_capability"])
for op in OPS:
    for case, dtype, layout in pairwise(op.vectors, DTYPES, ["contiguous", "channels_last"]):
        check(case, "cpu", dtype, layouts=case.laid_out(layout))
        if dtype.itemsize == 2 and case.matrices:
            check(case, "cpu", dtype, torch.float32)
for dtype in (torch.float16, torch.bfloat16):
    check_conversions(dtype, "cpu")
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
    return {"AVX2": "avx2", "AVX512": "avx512"}.get(torch.backends.cpu.get_cpu_capability(), CAPABILITIES[0])


# The best one is what all other tests take.
@pytest.mark.thorough
@pytest.mark.parametrize("capability", CAPABILITIES[: CAPABILITIES.index(best_capability())])
def test_every_other_instruction_set_agrees_with_the_oracle(capability: str) -> None:
    child = run(CHILD, capability, str(Path(__file__).parents[1]))
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [capability]


@pytest.mark.thorough
def test_the_best_instruction_set_is_chosen() -> None:
    child = run("import elsa_ext; print(elsa_ext.build_info()['cpu_capability'])", None)
    assert (child.returncode, child.stdout.strip()) == (0, best_capability()), child.stderr


@pytest.mark.thorough
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

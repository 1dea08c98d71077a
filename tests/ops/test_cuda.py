"""What only a CUDA device can show: streams, graphs, sizes beyond 32 bits."""

from collections.abc import Iterator

import elsa_ext
import pytest
import torch
from ops import backends
from ops.cases import Case, make, make_grad
from ops.checks import call, evaluate
from ops.ghost_head_cases import GhostHead
from ops.registry import every


@pytest.fixture(autouse=True)
def _cuda() -> Iterator[None]:
    for _ in backends.enter(backends.CUDA):
        yield


@pytest.mark.parametrize("case", every("kernels"), ids=str)
def test_a_graph_replays_forward_and_backward(case: Case) -> None:
    tensors = make(case, torch.float32, "cuda", layouts=case.laid_out("channels_last"))
    grad = make_grad(case, torch.float32, "cuda")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        evaluate(case, tensors, grad)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = evaluate(case, tensors, grad)
    for tensor in tensors.values():
        if tensor is not None:
            tensor.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    for name, result in evaluate(case, tensors, grad).items():
        assert torch.equal(captured[name], result), name


@pytest.mark.parametrize("case", every("kernels"), ids=str)
def test_works_on_the_current_stream(case: Case) -> None:
    tensors = make(case, torch.float32, "cuda", layouts=case.laid_out("channels_last"))
    expected = call(case, tensors)
    torch.cuda.synchronize()
    image = next(iter(tensors.values()))
    given = image.clone()
    image.fill_(torch.nan)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # on another stream, the op would read what was there before the copy
        image.copy_(given)
        out = call(case, tensors)
    side.synchronize()
    assert torch.equal(out, expected)


def test_tensors_of_more_than_2_to_31_elements() -> None:
    batch, channels, side, kernel_size = 2, 96, 3400, 3
    needed = 5 * batch * channels * side**2 * 2
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of GPU memory")
    shape = (batch, channels, side, side)
    value = torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    assert value.numel() > 2**31
    attn = torch.randn(batch, 3 * kernel_size**2, side, side, device="cuda", dtype=torch.bfloat16)
    attn = attn.to(memory_format=torch.channels_last)
    add = torch.randn(channels, kernel_size, kernel_size, device="cuda")
    out = elsa_ext.ghost_head(value, attn, None, add, kernel_size=kernel_size)
    corner = (slice(1, 2), slice(None), slice(-8, None), slice(-8, None))
    alone = elsa_ext.ghost_head(value[corner], attn[corner], None, add, kernel_size=kernel_size)
    torch.testing.assert_close(out[corner][..., 1:, 1:], alone[..., 1:, 1:], rtol=0, atol=0)


def test_tensors_on_two_devices_are_named() -> None:
    case = GhostHead()
    tensors = make(case, torch.float32, "cuda")
    with pytest.raises(RuntimeError, match=r"elsa::ghost_head: attn must be on cuda:\d+ as value is, got cpu"):
        call(case, {**tensors, "attn": tensors["attn"].cpu()})

"""Which implementation answers a call, and what it leaves alone."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import elsa_ext
import pytest
import torch
from ops.backends import CAPABILITIES, Backend
from ops.cases import Case, make, make_grad
from ops.checks import call, evaluate
from ops.registry import DEFAULT
from torch.utils._python_dispatch import TorchDispatchMode

ANY = DEFAULT[0]

# Torch notes for the whole process that a mode is on: modes of two threads that overlap leave that note behind, and
# nothing compiles from then on.
one_mode = threading.Lock()


class Ops(TorchDispatchMode):
    """Notes the namespace of every op that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.namespaces.add(func.namespace)
        return func(*args, **(kwargs or {}))


def namespaces(case: Case, device: str) -> set[str]:
    """The namespaces of the ops that ``case`` and its gradients run."""
    tensors, grad = make(case, device=device), make_grad(case, device=device)
    with one_mode, Ops() as ops:
        evaluate(case, tensors, grad)
    return ops.namespaces


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_the_native_backend_runs_the_registered_op(native: Backend, case: Case) -> None:
    assert "elsa" in namespaces(case, native.device)
    with elsa_ext.use_backend("torch"):
        assert namespaces(case, native.device) == {"aten"}
        with elsa_ext.use_backend("native"):
            assert "elsa" in namespaces(case, native.device)
        assert namespaces(case, native.device) == {"aten"}
    assert "elsa" in namespaces(case, native.device)


def test_an_error_puts_the_backend_back() -> None:
    with pytest.raises(KeyError), elsa_ext.use_backend("torch"):
        raise KeyError
    assert "elsa" in namespaces(ANY, "cpu")


def test_threads_choose_for_themselves() -> None:
    """Two threads whose blocks overlap, and a third that opens none."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen: dict[str, set[str]] = {}

    def first() -> None:
        with elsa_ext.use_backend("torch"):
            first_is_in.set()
            second_is_in.wait(10)
            seen["first"] = namespaces(ANY, "cpu")
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(10)
        with elsa_ext.use_backend("torch"):
            second_is_in.set()
            seen["third"] = ThreadPoolExecutor(1).submit(namespaces, ANY, "cpu").result()
            first_is_out.wait(10)
            seen["second"] = namespaces(ANY, "cpu")

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["first"] == seen["second"] == {"aten"}
    assert "elsa" in seen["third"]
    assert "elsa" in namespaces(ANY, "cpu")


def test_asynchronous_tasks_choose_for_themselves() -> None:
    async def with_formula() -> set[str]:
        with elsa_ext.use_backend("torch"):
            await asyncio.sleep(0)
            return namespaces(ANY, "cpu")

    async def without() -> set[str]:
        await asyncio.sleep(0)
        return namespaces(ANY, "cpu")

    async def both() -> list[set[str]]:
        return await asyncio.gather(with_formula(), without(), with_formula())

    first, second, third = asyncio.run(both())
    assert first == third == {"aten"}
    assert "elsa" in second


def test_compiled_code_follows_the_choice() -> None:
    tensors = make(ANY)
    chosen: list[set[str]] = []

    def note(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
        chosen.append({"elsa" for target in targets if str(target).startswith("elsa.")})
        return graph

    compiled = torch.compile(lambda: call(ANY, tensors), fullgraph=True, backend=note)
    expected = compiled()
    with elsa_ext.use_backend("torch"):
        torch.testing.assert_close(compiled(), expected, rtol=1e-12, atol=1e-12)
        with elsa_ext.use_backend("native"):
            compiled()
    compiled()
    assert chosen == [{"elsa"}, set(), {"elsa"}]


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"use_backend: name .* 'numpy'"), elsa_ext.use_backend("numpy"):
        pass


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_meta_tensors(backend: Backend, case: Case) -> None:
    """Shapes without numbers, as for a model built on the meta device."""
    tensors = {name: t.to("meta") for name, t in make(case, device=backend.device).items()}
    results = evaluate(case, tensors, make_grad(case, device="meta"))
    assert results["out"].is_meta and results["out"].shape == case.out_shape
    for name, tensor in tensors.items():
        assert results[name].is_meta and results[name].shape == tensor.shape


@pytest.mark.parametrize("case", DEFAULT, ids=str)
def test_writing_to_a_saved_input_is_noticed(native: Backend, case: Case) -> None:
    tensors = make(case, device=native.device)
    leaf = next(iter(tensors.values())).clone().requires_grad_()
    first = leaf * 1
    out = call(case, {**tensors, next(iter(tensors)): first})
    first.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_build_info() -> None:
    info = elsa_ext.build_info()
    assert info["cpu_capability"] in CAPABILITIES
    assert info["cpu_capability of this machine"] in CAPABILITIES
    assert all(isinstance(value, str) and value for value in info.values())

"""The processes of a run: one, or those that torchrun has started, and what they do together."""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ..device import find_device
from ..errors import CommandError, CommandFailed


@dataclass(frozen=True)
class Processes:
    """How many processes there are, and which of them this is."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """The number of this process among those of its machine."""
    launched: bool = False
    """Whether torchrun has started them."""

    def device(self, name: str | None) -> torch.device:
        """Return the device of this process: the one called ``name``, or, of several GPUs, the one with its number."""
        if name in (None, "cuda") and self.launched and torch.cuda.is_available():
            if self.local_rank >= torch.cuda.device_count():
                raise CommandError(
                    f"process {self.local_rank} of this machine has no GPU of its own, there are "
                    f"{torch.cuda.device_count()}; start fewer, or give --device cpu"
                )
            name = f"cuda:{self.local_rank}"
        device = find_device(name)
        if self.launched and device.type == "cuda":
            torch.cuda.set_device(device)
        return device

    def total(self, values: list[float]) -> list[float]:
        """Return the sums of ``values`` over all processes."""
        if self.count == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every process, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


@contextlib.contextmanager
def join_processes(args: argparse.Namespace) -> Iterator[Processes]:
    """Join those that torchrun has started, of which the first alone prints; without it this process is the only one.

    Raises:
        CommandError: ``args.parallel`` needs torchrun, or the processes cannot share the steps that ``args`` ask for.
    """
    if not dist.is_torchelastic_launched():
        if args.parallel == "fsdp":
            raise CommandError(
                "--parallel fsdp needs several processes: torchrun --nproc-per-node 2 --no-python elsa-ext train …"
            )
        yield check_shares(args, Processes())
        return
    if args.parallel == "fsdp" and args.compile:
        raise CommandError("--compile does not go with --parallel fsdp")
    rank, count, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    processes = check_shares(args, Processes(rank, count, local_rank, launched=True))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        with contextlib.ExitStack() as stack:
            if rank:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield processes
    except RuntimeError as error:
        if "by peer" not in str(error):
            raise
        raise CommandFailed("another process of this run has ended") from error
    finally:
        if sys.exc_info()[0] is None:  # where one has failed, the others never come to the end
            processes.wait()  # a connection that is closed while the other side still works may abort that
            dist.destroy_process_group()


def check_shares(args: argparse.Namespace, processes: Processes) -> Processes:
    """Return ``processes``, or raise a ``CommandError`` if a step cannot be cut into as many batches as it must be."""
    mixing = args.mixup > 0 or args.cutmix > 0
    unit = processes.count * args.accumulate * (2 if mixing else 1)
    if args.batch_size % unit:
        parts = [f"{processes.count} processes"] * (processes.count > 1)
        parts += [f"--accumulate {args.accumulate}"] * (args.accumulate > 1)
        parts += ["pairs of images, which --mixup and --cutmix need"] * mixing
        raise CommandError(f"--batch-size {args.batch_size} is not a multiple of {unit}: {' x '.join(parts)}")
    return processes


def shard(model: nn.Module, device: torch.device, processes: Processes) -> None:
    """Let every process keep a part of each parameter alone, by FSDP2; block by block, so that few are whole."""
    # The models here change no output of a block in place, which the warning is about.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (processes.count,))
    for name, module in reversed(list(model.named_modules())):
        if name and type(module).__name__.endswith(("Block", "Outlooker", "Transformer")):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model whose gradients are means over all processes, by DDP."""
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


@contextlib.contextmanager
def keep_apart(model: nn.Module, apart: bool) -> Iterator[None]:
    """Leave out the exchange of gradients if ``apart``: those of the parts of a step are added up first."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync() if apart else contextlib.nullcontext():
            yield
        return
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not apart)
    yield


def whole(content: Any) -> Any:
    """Return nested dicts and lists with every parted tensor put together, on the CPU; for all processes at once."""
    if isinstance(content, dict):
        return {key: whole(value) for key, value in content.items()}
    if isinstance(content, list):
        return [whole(value) for value in content]
    return content.full_tensor().cpu() if isinstance(content, DTensor) else content


def parted(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of ``tensor`` if ``like`` is parted so, and otherwise ``tensor``."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)

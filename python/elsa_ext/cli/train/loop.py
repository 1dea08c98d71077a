"""The training loop."""

import argparse
import contextlib
import math
import multiprocessing
import time
import types
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from ..data.data_set import Data, Images
from ..errors import CommandError, CommandFailed, describe
from ..signals import STOPPING, SharedFlag, stopped_by
from .processes import Processes, keep_apart, replicate, shard, whole
from .report import Metrics
from .state import gather_generators, set_generators, set_optimizer, set_weights, weights
from .steps import IGNORED, Batches, Drawn, Loader, loader, warmup_steps

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Progress:
    """How far an epoch has come, with the sums over its steps so far."""

    epoch: int = 1
    step: int = 0
    """Steps that are done."""
    loss: float = 0.0
    right: float = 0.0
    images: float = 0.0
    seconds: float = 0.0
    learning_rate: float = 0.0


@dataclass
class Training:
    """A model, what trains it, and how far that has come."""

    args: argparse.Namespace
    data: Data
    model: nn.Module
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    stop: list[int] = field(default_factory=list)
    """Signals that have come: after the step at hand the training ends with the first."""

    def __post_init__(self) -> None:
        args, processes = self.args, self.processes
        self.progress = Progress()
        self.ending = shared_flag(args.workers)
        """Set when the processes that load images are no longer needed."""
        self.skipped: set[str] = set()
        """Why images were skipped, in messages that name them."""
        self.frozen = freeze(self.model, args.freeze)
        self.average = ModelEmaV3(self.model, args.ema, use_warmup=True) if args.ema else None
        if args.compile:
            self.model.compile()
        self.parallel = self.model
        if args.parallel == "fsdp":
            for model in (self.model, self.average.module) if self.average else (self.model,):
                shard(model, self.device, processes)
        elif processes.count > 1:
            self.parallel = replicate(self.model, self.device)
        mixing = args.mixup > 0 or args.cutmix > 0
        self.mix = (
            Mixup(args.mixup, args.cutmix, label_smoothing=args.smoothing, num_classes=len(self.data.classes))
            if mixing
            else None
        )
        self.train_batches = self.batches(self.data.train, shuffle=True)
        self.test_batches = self.batches(self.data.test, shuffle=False)
        self.train_loader, self.test_loader = self.loader(self.train_batches), self.loader(self.test_batches)
        self.steps = len(self.train_batches.sizes)
        if not self.steps:
            raise CommandError(
                f"{len(self.data.train)} images are too few for steps of --batch-size {args.batch_size} in "
                f"{self.train_batches.shares} batches"
            )
        check_rates(args)
        self.optimizer = create_optimizer(args, self.model)
        total = args.epochs * self.steps
        rise = warmup_steps(total, self.steps, args.warmup_epochs)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            max(2, total),  # timm warns of a single step, which has the same rate either way
            lr_min=args.min_lr,
            warmup_t=rise,
            warmup_lr_init=args.lr / max(1, rise) if args.warmup_lr is None else args.warmup_lr,
            t_in_epochs=False,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=args.amp == "fp16")

    def batches(self, images: Images, shuffle: bool) -> Batches:
        """Return the batches of this process: those to train on, if they are to be shuffled, or to test on."""
        return Batches(
            len(images),
            self.args.batch_size,
            seed=self.args.seed if shuffle else None,
            rank=self.processes.rank,
            processes=self.processes.count,
            parts=self.args.accumulate if shuffle else 1,
            even=shuffle and self.mix is not None,
        )

    def loader(self, batches: Batches) -> Loader:
        """Return what loads those batches."""
        train = batches.seed is not None
        images = Drawn(
            self.data.train if train else self.data.test,
            torch.zeros(self.data.input_size),
            skip=self.args.bad_images == "skip",
            replace=train,
        )
        return loader(images, batches, self.args.workers, self.ending)

    def epochs(self) -> Generator[Metrics, None, None]:
        """Train the model in place, from where it is, and yield after every epoch.

        Raises:
            CommandError: The loss is not finite, the model cannot take a batch, an image cannot be read, or a process
                that loads images has ended.
            KeyboardInterrupt: One of ``stop`` has come; the model is as it was after the last whole step.
        """
        total = (self.args.epochs - self.progress.epoch + 1) * (len(self.train_batches) + len(self.test_batches))
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self.ending, "value", 1)
            silent = self.processes.rank > 0 or None
            bar = stack.enter_context(tqdm(total=total, leave=False, mininterval=0.5, disable=silent))
            bar.update(self.progress.step * self.args.accumulate)
            while self.progress.epoch <= self.args.epochs:
                bar.set_description(f"epoch {self.progress.epoch}/{self.args.epochs}")
                with explained():
                    self.learn(bar)
                    start = time.perf_counter()
                    loss, accuracy = self.test(bar)
                row = self.row(loss, accuracy, time.perf_counter() - start)
                self.progress = Progress(self.progress.epoch + 1)
                yield row

    def row(self, test_loss: float, test_accuracy: float, test_seconds: float) -> Metrics:
        """Return what this epoch has come to."""
        done = self.progress
        return Metrics(
            done.epoch,
            done.loss / done.images,
            done.right / done.images,
            test_loss,
            test_accuracy,
            seconds=round(done.seconds + test_seconds, 2),
            learning_rate=done.learning_rate,
            images_per_second=round(done.images / done.seconds, 1),
        )

    def learn(self, bar: Any) -> None:
        """Do the steps of this epoch that are not done yet."""
        self.train_batches.epoch, self.train_batches.start = self.progress.epoch, self.progress.step
        self.model.train()
        for module in self.frozen:
            module.eval()
        batches = iter(self.train_loader)
        for size in self.train_batches.sizes[self.progress.step :]:
            start = time.perf_counter()
            sums = [0.0, 0.0, 0.0]
            self.schedule.step_update((self.progress.epoch - 1) * self.steps + self.progress.step)
            for part in range(self.args.accumulate):
                with keep_apart(self.parallel, part < self.args.accumulate - 1):
                    sums = [a + b for a, b in zip(sums, self.part(next(batches), size), strict=True)]
                bar.update()
            self.update()
            loss, right, images, *signals = self.processes.total([*sums, *self.signals()])
            self.progress.step += 1
            self.progress.loss += loss
            self.progress.right += right
            self.progress.images += images
            self.progress.seconds += time.perf_counter() - start
            self.raise_signal(signals)

    def part(self, batch: tuple[Tensor, Tensor, list[str]], size: int) -> list[float]:
        """Add a batch's gradients to those of its step of ``size`` images; return loss, right answers and images."""
        images, labels = self.take(batch)
        targets, smoothing = labels, self.args.smoothing
        if self.mix is not None:
            (images, targets), smoothing = self.mix(images, labels), 0.0
        with self.autocast():
            logits = forward(self.parallel, images)
            loss = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        check_finite(loss.item())
        # Gradients are means over processes; those of the step's mean loss are wanted.
        self.scaler.scale(loss * (self.processes.count / size)).backward()
        return [loss.item(), float((logits.argmax(1) == labels).sum()), len(labels)]

    def update(self) -> None:
        """Take a step along the gradients."""
        if self.args.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        done = (self.progress.epoch - 1) * self.steps + self.progress.step + 1
        if self.average is not None:
            self.average.update(self.model, step=done)
        group = self.optimizer.param_groups[0]
        self.progress.learning_rate = group["lr"] / group.get("lr_scale", 1.0)

    def test(self, bar: Any) -> tuple[float, float]:
        """Return mean loss and share of right answers over all test images."""
        model = self.tested.eval()
        sums = [0.0, 0.0, 0.0]
        for batch in self.test_loader:
            images, labels = self.take(batch)
            with torch.no_grad(), self.autocast():
                logits = forward(model, images)
                loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
            right = float((logits.argmax(1) == labels).sum())
            found = [loss.item(), right, float((labels != IGNORED).sum()), *self.signals()]
            *found, interrupt, terminate, hang_up = self.processes.total(found)
            sums = [a + b for a, b in zip(sums, found, strict=True)]
            bar.update()
            self.raise_signal([interrupt, terminate, hang_up])
        if not sums[2]:
            raise CommandError(f"none of the test images can be read: {min(self.skipped)}")
        check_finite(sums[0])  # the last step of the epoch may be the one that has gone too far
        return sums[0] / sums[2], sums[1] / sums[2]

    def take(self, batch: tuple[Tensor, Tensor, list[str]]) -> tuple[Tensor, Tensor]:
        """Note what was skipped of a batch, and return its images and labels on the device."""
        images, labels, reasons = batch
        self.skipped.update(filter(None, reasons))
        return images.to(self.device), labels.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of the forward, in 16 bits if so asked."""
        if self.args.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, AMP[self.args.amp])

    @property
    def tested(self) -> nn.Module:
        """The model that is tested, and kept to be used: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    def signals(self) -> list[float]:
        """Return of each signal whether it has come."""
        return [float(number in self.stop) for number in STOPPING]

    def raise_signal(self, came: list[float]) -> None:
        """End, in all processes at the same step, if a signal has come to any."""
        for number, count in zip(STOPPING, came, strict=True):
            if count:
                raise stopped_by(number)

    def state(self) -> dict[str, Any]:
        """Return all but the tested weights that it takes to go on from here; for all processes at once."""
        return {
            "progress": asdict(self.progress),
            "model": None if self.average is None else weights(self.model),
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "generators": gather_generators(self.processes, self.device),
        }

    def load(self, state: dict[str, Any], tested: dict[str, Tensor]) -> None:
        """Go on from what ``state`` has returned, and from the weights of ``tested``."""
        self.progress = Progress(**state["progress"])
        set_weights(self.tested, tested)
        if self.average is not None:
            set_weights(self.model, state["model"])
        set_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        saved = state["generators"]
        set_generators(saved[self.processes.rank % len(saved)], self.device)


def shared_flag(workers: int) -> SharedFlag:
    """Return a number that is shared with workers, if there are any."""
    return multiprocessing.RawValue("b", 0) if workers else types.SimpleNamespace(value=0)


def check_finite(loss: float) -> None:
    """Raise a ``CommandFailed`` if the training has diverged."""
    if not math.isfinite(loss):
        raise CommandFailed("the loss is no longer finite; try a lower --lr")


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of images, or raise a ``CommandError`` if the model cannot take so few of them."""
    try:
        logits: Tensor = model(images)
    except ValueError as error:  # such as of batch norm, which has no variance over one image of one pixel
        size = f"{len(images)} x {images.shape[2]} x {images.shape[3]}"
        raise CommandError(f"the model cannot learn from a batch of {size} pixels: {error}") from error
    return logits


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Keep the modules of these names as they are, and return them.

    Raises:
        CommandError: The model has no such module, or nothing is left to train.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules or not name:
            close = get_close_matches(name, modules, cutoff=0.4) or [key for key, _ in model.named_children()]
            raise CommandError(f"--freeze {name}: the model has no module of this name; it has {', '.join(close)}")
        modules[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise CommandError(f"--freeze {' '.join(names)} leaves nothing to train")
    return [modules[name] for name in names]


def create_optimizer(args: argparse.Namespace, model: nn.Module) -> torch.optim.Optimizer:
    """Return timm's optimizer of a model, with its groups of parameters: no decay of biases, and layers apart."""
    options = {"lr": args.lr, "weight_decay": args.weight_decay, "momentum": args.momentum}
    try:
        return create_optimizer_v2(model, args.opt, **options, layer_decay=args.layer_decay)
    except (ValueError, AssertionError, ImportError, RuntimeError) as error:  # of options that do not go together
        raise CommandError(f"--opt {args.opt}: {error}") from error


def check_rates(args: argparse.Namespace) -> None:
    """Raise a ``CommandError`` if the learning rate would not rise to ``--lr`` and fall from it."""
    for flag, rate in (("--min-lr", args.min_lr), ("--warmup-lr", args.warmup_lr)):
        if rate is not None and rate > args.lr:
            raise CommandError(f"{flag} {rate:g} is above --lr {args.lr:g}, the highest learning rate")


def check_optimizer(name: str) -> None:
    """Raise a ``CommandError`` that suggests others if timm has no optimizer ``name``."""
    names = list_optimizers()
    if name.lower() not in names:
        close: list[str] = get_close_matches(name.lower(), map(str, names)) or ["adamw", "sgd", "lamb"]
        raise CommandError(f"--opt {name}: timm has no such optimizer; did you mean {' or '.join(close)}?")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the end of a process that loads images, such as by a full /dev/shm, into a ``CommandError``."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise CommandError(f"{describe(error)} (--workers 0 loads the images without other processes)") from error

"""The order of the images, which a seed fixes: in which step each is, on which process, and how it is augmented."""

import contextlib
import functools
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.data_set import Images
from ..errors import CommandError
from ..signals import SharedFlag, let_finish

IGNORED = -1
"""The label of an image that does not count."""


class Draw(NamedTuple):
    """An image to load, and the seed of its augmentation; an image below 0 fills a batch up."""

    image: int
    seed: int


class Batches(Sampler[list[Draw]]):
    """The batches of one process: each step's images, cut into one batch for every process and accumulated part.

    Which images are in a step, in which order, and how they are augmented depends on the seed and the epoch alone, not
    on the number of processes, of parts or of workers.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        *,
        seed: int | None,
        rank: int = 0,
        processes: int = 1,
        parts: int = 1,
        even: bool = False,
    ) -> None:
        """Plan the steps of an epoch.

        Args:
            images: How many there are.
            batch_size: Images of a step, over all processes and parts.
            seed: Of the order; None leaves the images in theirs, and keeps a last step however small it is.
            rank: The number of this process, from 0.
            processes: How many there are.
            parts: Batches of a process in each step.
            even: Whether every batch must have an even number of images, for mixup.
        """
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.rank, self.parts, self.shares = rank, parts, processes * parts
        self.epoch, self.start = 1, 0
        last = images % batch_size
        unit = self.shares * (2 if even else 1)
        if seed is not None:
            last -= last % unit if even else 0
            # Batch norm over one pixel cannot take a lone image, and its step would count as much as a whole batch's.
            lone = last == 1 and images > batch_size
            last = 0 if lone or last < self.shares else last
        self.sizes = [batch_size] * (images // batch_size) + [last] * (last > 0)
        """Images of each step."""

    def __len__(self) -> int:
        return (len(self.sizes) - self.start) * self.parts

    def __iter__(self) -> Iterator[list[Draw]]:
        order, seeds = self.order()
        for step in range(self.start, len(self.sizes)):
            images = slice(step * self.batch_size, step * self.batch_size + self.sizes[step])
            drawn = [Draw(*pair) for pair in zip(order[images], seeds[images], strict=True)]
            for part in range(self.parts):
                # Every process has a batch in every step: what they do together would wait for one that has none.
                yield drawn[self.rank * self.parts + part :: self.shares] or [Draw(-1, 0)]

    def order(self) -> tuple[list[int], list[int]]:
        """Return the images of the epoch in their order, and the seed of each one's augmentation."""
        if self.seed is None:
            return list(range(self.images)), [0] * self.images
        [mixed] = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1).tolist()
        generator = torch.Generator().manual_seed(mixed)
        order = torch.randperm(self.images, generator=generator)
        return order.tolist(), torch.randint(2**31, (self.images,), generator=generator).tolist()


class Drawn(Dataset[Any]):
    """The images of draws, each with its label and, if it cannot be read and may be skipped, the reason."""

    def __init__(self, images: Images, blank: Tensor, *, skip: bool, replace: bool) -> None:
        """Wrap ``images``.

        Args:
            images: By index.
            blank: What stands in for an image that does not count.
            skip: Whether one that cannot be read is skipped; otherwise that is an error.
            replace: Whether the next one that can be read takes its place; otherwise ``blank`` does.
        """
        self.images, self.blank, self.skip, self.replace = images, blank, skip, replace

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, str]:
        reason = ""
        for offset in range(len(self.images) if draw.image >= 0 else 0):
            try:
                with seeded(draw.seed):
                    return *self.images[(draw.image + offset) % len(self.images)], reason
            except CommandError as error:
                if not self.skip:
                    raise
                reason = reason or str(error)
            if not self.replace:
                break
        else:
            if draw.image >= 0:
                raise CommandError(f"none of the images can be read: {reason}")
        return self.blank, IGNORED, reason


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the generators of Python, NumPy and torch on the CPU start from ``seed``, and go on afterwards as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


Loader = DataLoader[tuple[Tensor, Tensor, list[str]]]


def loader(images: Drawn, batches: Batches, workers: int, ending: SharedFlag) -> Loader:
    """Return what loads ``batches`` of ``images``, in so many processes beside this one, which end after ``ending``."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=functools.partial(let_finish, ending),
        generator=torch.Generator(),  # its own: by default the loader draws a number from that of the model
    )


def warmup_steps(steps: int, per_epoch: int, epochs: float | None) -> int:
    """Return how many steps the learning rate rises over: so many epochs, by default a tenth of all steps."""
    return max(1, steps // 10) if epochs is None else min(steps, math.ceil(epochs * per_epoch))

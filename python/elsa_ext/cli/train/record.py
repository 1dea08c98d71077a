"""What a training leaves behind while it is under way."""

import sys
from typing import Any

from tqdm import tqdm

from ..._install import install_command
from ..checkpoint import Checkpoint
from ..errors import CommandError, CommandFailed, describe
from ..text import printable
from .loop import Training
from .report import Metrics, table_row
from .resume import kept_options
from .run_folder import RunFolder
from .state import weights


class Record:
    """Checkpoint and metrics of a run: the first of its processes writes them, the others only add what is theirs."""

    def __init__(
        self,
        training: Training,
        folder: RunFolder | None,
        kwargs: dict[str, Any],
        config: dict[str, Any],
        found: Checkpoint | None,
    ) -> None:
        """Record ``training``.

        Args:
            training: In any of the processes.
            folder: Of the first process.
            kwargs: Arguments of the model.
            config: Of its input.
            found: What the training goes on from.

        Raises:
            CommandError: TensorBoard is asked for, but not installed.
        """
        self.training, self.folder, self.kwargs, self.config = training, folder, kwargs, config
        state = found.training if found is not None else None
        self.rows = [] if state is None else [Metrics(**row) for row in state["rows"]]
        self.named: set[str] = set()
        """Messages about images that were skipped."""
        self.board = board(folder, len(self.rows)) if training.args.tensorboard and folder is not None else None

    def add(self, row: Metrics) -> None:
        """Add an epoch, and show it; for all processes at once."""
        self.rows.append(row)
        try:
            self.save()
        except BaseException:
            self.rows.pop()  # what is told at the end is what is on the disk
            raise
        tqdm.write(table_row(row))
        self.name_skipped()
        if self.board is not None:
            for name, value in vars(row).items():
                self.board.add_scalar(name, value, row.epoch)
            self.board.flush()

    def save(self) -> None:
        """Write how far the training is; for all processes at once.

        Raises:
            OSError: It cannot be written.
            CommandFailed: The same, but what was written before is still there.
        """
        training, data = self.training, self.training.data
        checkpoint = Checkpoint(
            training.args.model,
            self.kwargs,
            data.classes,
            self.config,
            len(self.rows),
            vars(self.rows[-1]) if self.rows else {},
            weights(training.tested),
            {
                **training.state(),
                "options": kept_options(training.args),
                "images": [len(data.train), len(data.test)],
                "rows": [vars(row) for row in self.rows],
            },
        )
        if self.folder is not None:
            try:
                self.folder.save(checkpoint, self.rows)
            except OSError as error:
                if not self.folder.begun:
                    raise
                raise CommandFailed(
                    f"{describe(error)}; what was written before is still there, and elsa-ext train --resume "
                    f"{self.folder.path} goes on from it"
                ) from error
        self.training.processes.wait()  # a process that ends makes torchrun end the others

    def name_skipped(self) -> None:
        """Tell which images were skipped for the first time in this epoch; for all processes at once."""
        skipped: set[str] = set().union(*self.training.processes.gather(self.training.skipped))
        if self.folder is not None:
            for reason in sorted(skipped - self.named):
                tqdm.write(f"elsa-ext train: skipped: {printable(reason)}", file=sys.stderr)
        self.named |= skipped


def board(folder: RunFolder, epochs: int) -> Any:
    """Return what writes for TensorBoard into a run folder, after so many epochs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise CommandError(f"--tensorboard: not installed: {install_command('tensorboard')}") from None
    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=epochs + 1)

"""``last.ckpt``: always there to go on from, however the run ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepmac.lightning.checkpoint_files import NotFinite
from deepmac.lightning.console import say
from deepmac.lightning.private import CheckpointWriter, validation_follows
from deepmac.nn.ranges import PositiveInt


class LastCheckpoint(CheckpointWriter):
    """Saves every few steps, at the end of training, on SIGTERM, Ctrl-C and between two steps.

    What a step left that did not end (statistics, half of an update) would not resume to the same
    training: then the last file stays, as it does where the network is not finite. Resume with
    ``ckpt_path=last``.

    Args:
        dirpath: relative to the run directory.
        every_n_train_steps: optimizer steps that a killed run can lose.
    """

    def __init__(
        self, *, dirpath: str = "checkpoints", every_n_train_steps: PositiveInt = 200
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_train_steps=every_n_train_steps,
            save_on_exception=True,
            enable_version_counter=False,
        )
        self._between_steps = False  # not before this process has made one
        self._step_before = 0
        self._within_step = self._due = False

    @property
    def path(self) -> Path | None:
        """Of the file; None before the run knows its directory."""
        return None if self.dirpath is None else Path(self.dirpath) / "last.ckpt"

    def is_of(self, step: int) -> bool:
        """Whether this run wrote it after that step."""
        return self.saved_step == step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins, or a part of one where gradients are accumulated."""
        if not self._within_step:
            self._step_before = trainer.global_step
        self._between_steps, self._within_step = False, True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """It ended, unless gradients wait for more."""
        self._between_steps = trainer.global_step != self._step_before
        self._within_step = not self._between_steps
        due = self._between_steps and self.is_due(trainer.global_step)
        if due and validation_follows(trainer):
            self._due = True
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where a step's validation is scored, saved and logged, nothing of it is left to do."""
        super().on_validation_end(trainer, pl_module)
        if not self.saves_at_epoch_end(trainer):
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As ``on_validation_end``, where ``best.ckpt`` waits for the end of the epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        self._due = self._due or trainer.received_sigterm
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if self._due:
            self.save_now(trainer)
        self._due = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save; where that would spoil a good file or wait for ever, leave the last one."""
        # For SIGTERM all replicas stop after the same step; for all else one is alone.
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        built = getattr(pl_module, "network", None) is not None
        spared = isinstance(exception, NotFinite | OSError)
        if together and built and self._between_steps and not spared:
            try:
                super().on_exception(trainer, pl_module, exception)
            except (NotFinite, OSError) as error:  # the exception at hand says why the run ends
                say(f"nothing was saved at the end: {error}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last weights, whatever step they fell on."""
        super().on_train_end(trainer, pl_module)
        if not self.is_of(trainer.global_step) and self.path is not None:
            trainer.save_checkpoint(self.path)
            self.saved_step = trainer.global_step

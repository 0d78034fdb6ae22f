"""``last.ckpt``: always there to go on from, however the run ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepmac.lightning.checkpoint_files import NotFinite
from deepmac.lightning.console import say


class LastCheckpoint(ModelCheckpoint):
    """Saves every few steps, at the end of training, on SIGTERM, Ctrl-C and between two steps.

    What a step left that did not end (statistics, half of an update) would not resume to the same
    training: then the last file stays, as it does where the network is not finite. Resume with
    ``ckpt_path=last``.

    Args:
        dirpath: relative to the run directory.
        every_n_train_steps: optimizer steps that a killed run can lose.
    """

    def __init__(self, *, dirpath: str = "checkpoints", every_n_train_steps: int = 200) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_train_steps=every_n_train_steps,
            save_on_exception=True,
            enable_version_counter=False,
        )
        self._between_steps = True
        self._step_before = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins, or a part of one where gradients are accumulated."""
        if self._between_steps:
            self._step_before = trainer.global_step
        self._between_steps = False

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
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

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
        if self._last_global_step_saved != trainer.global_step and self.dirpath is not None:
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")

"""``last.ckpt``: always there to go on from, however the run ended."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepmac.lightning import xla
from deepmac.lightning.step_watch import LossNotFinite


class LastCheckpoint(ModelCheckpoint):
    """Saves every few steps, at the end of training, on SIGTERM, Ctrl-C and any error.

    A file is replaced only by a complete new one. Resume with ``ckpt_path=last``.

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

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save; where that would spoil a good file or wait for ever, leave the last one."""
        # On XLA the step has ended on every replica for SIGTERM alone.
        together = trainer.world_size == 1 or not xla.runs_on(trainer)
        together = together or isinstance(exception, SIGTERMException)
        built = getattr(pl_module, "network", None) is not None
        if together and built and not isinstance(exception, LossNotFinite):
            super().on_exception(trainer, pl_module, exception)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last weights, whatever step they fell on."""
        super().on_train_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step and self.dirpath is not None:
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")

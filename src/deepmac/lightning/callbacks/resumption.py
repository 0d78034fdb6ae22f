"""What a run needs, beside Lightning's states, to go on as if it had never stopped."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepmac.lightning.callbacks.evaluation import EvaluateCoco
from deepmac.lightning.callbacks.metrics_csv import MetricsCsv
from deepmac.lightning.private import count_logged_steps, pending_row

KEY = "deepmac_metrics"
"""The checkpoint's entry: how many rows ``metrics.csv`` has, and the one that is about to come."""


class Resumption(Callback):
    """Keeps ``metrics.csv`` and the numbering of its rows with the checkpoints."""

    def __init__(self) -> None:
        self._scored_step = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Only a training writes a training's file."""
        for logger in _tables(trainer):
            if stage == "fit":
                logger.start()
            else:  # the row of a finished training's evaluation is there already
                logger.leave_alone(always=self._scored_step == trainer.global_step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before anything of the step is logged."""
        count_logged_steps(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """On the first replica, which writes the rows."""
        if trainer.state.fn == "fit" and trainer.is_global_zero:
            scored = any(
                callback.step == trainer.global_step
                for callback in trainer.callbacks  # type: ignore[attr-defined]
                if isinstance(callback, EvaluateCoco)
            )
            for logger in _tables(trainer):
                checkpoint[KEY] = {
                    "rows": logger.sync(),
                    "pending": pending_row(trainer),
                    "scored": scored,
                }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Of a training that goes on."""
        if trainer.state.fn != "fit":
            return
        told = checkpoint.get(KEY)
        if told is not None and told.get("scored"):
            self._scored_step = checkpoint["global_step"]
        if told is not None and trainer.is_global_zero:
            for logger in _tables(trainer):
                logger.go_on(int(told["rows"]), told["pending"])


def _tables(trainer: pl.Trainer) -> list[MetricsCsv]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCsv)]

"""What a run needs, beside Lightning's states, to go on as if it had never stopped."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepmac.lightning.callbacks.evaluation import EvaluateCoco
from deepmac.lightning.callbacks.metrics_csv import MetricsCsv, Row
from deepmac.lightning.checkpoint_files import damaged
from deepmac.lightning.private import count_logged_steps, pending_row
from deepmac.lightning.states import check_callbacks, check_training

KEY = "deepmac_metrics"
"""The checkpoint's entry: how many rows ``metrics.csv`` has, and the one that is about to come."""


class Resumption(Callback):
    """Keeps ``metrics.csv`` and the numbering of its rows with the checkpoints."""

    def __init__(self) -> None:
        self._scored_step = -1
        self._checkpoint: dict[str, Any] | None = None

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
        """Of a training that goes on.

        Raises:
            ValueError: the states of a callback are not its own.
        """
        if trainer.state.fn != "fit":
            return
        check_callbacks(trainer, checkpoint.get("callbacks"))
        self._checkpoint = checkpoint
        told = checkpoint.get(KEY)
        if told is None:
            return
        rows, pending, scored = _read(told)
        if scored:
            self._scored_step = checkpoint["global_step"]
        if trainer.is_global_zero:
            for logger in _tables(trainer):
                logger.go_on(rows, pending)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """There are optimizers now, which have not taken over their states yet.

        Raises:
            UserError: those states, or the loops', are not what a training writes.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            try:
                check_training(trainer, checkpoint)
            except ValueError as error:
                raise damaged(trainer.ckpt_path, error) from error


def _read(told: Any) -> tuple[int, Row | None, bool]:
    """The checkpoint's entry; what Lightning logs is a number or a text."""
    if isinstance(told, dict):
        rows, pending, scored = (told.get(name) for name in ("rows", "pending", "scored"))
        row = pending is None or (
            isinstance(pending, dict)
            and all(isinstance(k, str) and isinstance(v, int | float) for k, v in pending.items())
        )
        if row and isinstance(rows, int) and 0 <= rows < sys.maxsize:
            return rows, pending, scored is True
    raise ValueError(f"{KEY} is {told!r:.40}")


def _tables(trainer: pl.Trainer) -> list[MetricsCsv]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCsv)]

"""Places in Lightning's loops that no public name reaches: all that this project needs of them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def validation_follows(trainer: pl.Trainer) -> bool:
    """Within ``on_train_batch_end``: whether a validation runs before the next batch."""
    loop = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))  # type: ignore[arg-type]


def logs_this_step(trainer: pl.Trainer) -> bool:
    """Within a training step: whether Lightning logs it."""
    return bool(trainer._logger_connector.should_update_logs)


def pending_row(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Within ``on_train_batch_end``: what Lightning will log of this step; elsewhere None."""
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    total: Any = loop.batch_progress.total
    within = total.completed < total.processed
    if not (trainer.training and within) or loop._should_accumulate():
        return None
    metrics = connector.metrics["log"] if connector.should_update_logs else {}
    if not metrics:
        return None
    row = {name: float(value) for name, value in metrics.items()}
    return {"epoch": trainer.current_epoch, **row, "step": loop._batches_that_stepped}


def count_logged_steps(trainer: pl.Trainer) -> None:
    """At the start of a batch: number the rows to come by the optimizer steps before them.

    Lightning counts them apart, and on resumption is one too low or too high, depending on where
    the checkpoint was written.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def epoch_ends(trainer: pl.Trainer) -> bool:
    """Within ``on_train_batch_end``: whether this was the epoch's last batch."""
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def stop_after_step(trainer: pl.Trainer) -> None:
    """End the training as SIGTERM does: after this step, with a last checkpoint."""
    trainer._signal_connector.received_sigterm = True

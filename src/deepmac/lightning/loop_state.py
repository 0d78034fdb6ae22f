"""Places in Lightning's loops that no public name reaches: all that this project needs of them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def validation_follows(trainer: pl.Trainer) -> bool:
    """Within ``on_train_batch_end``: whether a validation runs before the next batch."""
    loop = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))  # type: ignore[arg-type]


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


def set_logged_steps(loops: dict[str, Any], step: int, accumulate: int) -> None:
    """Make a resumed run number its rows as an undisturbed one.

    Lightning counts logged steps apart from optimizer steps, stores the count before the step that
    a checkpoint follows, and adds one on resumption; not so where the checkpoint was written after
    a validation, which leaves all later rows one step early.

    Args:
        loops: ``checkpoint["loops"]``, changed in place.
        step: optimizer steps behind the checkpoint.
        accumulate: ``trainer.accumulate_grad_batches``.
    """
    progress = loops["fit_loop"]["epoch_loop.batch_progress"]
    total = progress["total"]
    over = total["ready"] == total["started"] == total["processed"] == total["completed"]
    stepped = progress["current"]["ready"] % accumulate == 0 or progress["is_last_batch"]
    adds_one = stepped and not over
    loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = step - adds_one


def stop_after_step(trainer: pl.Trainer) -> None:
    """End the training as SIGTERM does: after this step, with a last checkpoint."""
    trainer._signal_connector.received_sigterm = True

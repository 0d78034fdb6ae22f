"""What a person watching a run sees: losses, seconds per step, time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from deepmac.nn.ranges import NonNegativeFloat, NonNegativeInt

_MEMORY = 0.98
"""Share of the earlier steps' weight that each step leaves in the mean of the waiting."""
_STEPS_BEFORE_ADVICE = 100
_MUCH = 0.2

_TIMES = ("train/seconds_per_step", "train/data_wait")


class Progress(RichProgressBar):
    """A rich bar on a terminal; elsewhere a plain line now and then. Logs the pace either way.

    ``train/data_wait`` is the share of the time in which a step waits for its batch, over the last
    fifty steps or so; where it stays above a fifth, one line says what to change.

    Args:
        refresh_rate: batches between updates of the bar.
        line_seconds: seconds between plain lines where the output is no terminal.
    """

    def __init__(
        self, *, refresh_rate: NonNegativeInt = 1, line_seconds: NonNegativeFloat = 30.0
    ) -> None:
        super().__init__(
            refresh_rate=refresh_rate, theme=RichProgressBarTheme(metrics_format=".3f")
        )
        self.line_seconds = line_seconds
        self.plain = not sys.stdout.isatty()
        self._started = self._last_line = self._last_step = 0.0
        self._first_batch = 0
        self._waited = self._waits = self._seconds = 0.0
        self._steps, self._advised = 0, False
        if self.plain:
            self.disable()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed run counts from where it stands."""
        super().on_train_start(trainer, pl_module)
        self._started = self._last_line = self._last_step = time.monotonic()
        self._first_batch = self._batches(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there: what passed since the last step was waiting."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._waited = time.monotonic() - self._last_step

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the pace, draw or print."""
        now = time.monotonic()
        pl_module.log(
            "train/seconds_per_step",
            torch.tensor(now - self._last_step),  # a plain number would go to the device
            prog_bar=True,
            batch_size=len(batch["images"]),
        )
        waiting = self._waiting(now - self._last_step)
        pl_module.log("train/data_wait", torch.tensor(waiting), batch_size=len(batch["images"]))
        if trainer.is_global_zero:
            self._advise(waiting)
        self._last_step = now
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        first = self._last_line == self._started
        due = first or now - self._last_line >= self.line_seconds
        if self.plain and trainer.is_global_zero and due:
            self._last_line = now
            print(self._line(trainer, batch_idx, now), flush=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The pace counts training steps only."""
        super().on_validation_start(trainer, pl_module)
        self._validation_started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the evaluation's time out of the pace."""
        super().on_validation_end(trainer, pl_module)
        spent = time.monotonic() - self._validation_started
        self._last_step += spent
        self._started += spent

    def _waiting(self, seconds: float) -> float:
        """The share of waiting, with a step of so many seconds."""
        self._waits = _MEMORY * self._waits + min(self._waited, seconds)
        self._seconds = _MEMORY * self._seconds + seconds
        self._steps += 1
        return self._waits / max(self._seconds, 1e-9)

    def _advise(self, waiting: float) -> None:
        if self._advised or self._steps < _STEPS_BEFORE_ADVICE or waiting <= _MUCH:
            return
        self._advised = True
        print(
            f"the training waits for its data {100 * waiting:.0f} % of the time: raise "
            "data.num_workers, or keep pictures that are scaled down to data.image_size already",
            flush=True,
        )

    def _line(self, trainer: pl.Trainer, batch_idx: int, now: float) -> str:
        done = self._batches(trainer) - self._first_batch
        pace = (now - self._started) / max(1, done)
        total = trainer.num_training_batches
        metrics = {
            name.removeprefix("train/"): value.item()
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and name not in _TIMES
        }
        losses = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        line = f"epoch {trainer.current_epoch}  batch {batch_idx + 1}/{total}  {losses}"
        line += f"  {pace:.2f} s/batch"
        if self._seconds:
            line += f"  waiting for data {100 * self._waits / self._seconds:.0f} %"
        left = self._batches_left(trainer, total)
        if left is not None:
            line += f"  {timedelta(seconds=round(left * pace))} left"
        return line

    @staticmethod
    def _batches(trainer: pl.Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready

    @classmethod
    def _batches_left(cls, trainer: pl.Trainer, per_epoch: float) -> float | None:
        """Batches to the end of training, as far as it is set."""
        limits = []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(trainer.max_epochs * per_epoch)
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
        return max(0.0, min(limits) - cls._batches(trainer)) if limits else None

"""What a person watching a run sees: how far it is, its losses, its pace."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from rich.live import Live

from deepmac.lightning.callbacks.pace import Pace, rest_of, total_batches
from deepmac.lightning.callbacks.screen import Screen, figure
from deepmac.lightning.callbacks.stop_signals import StopSignals
from deepmac.lightning.console import terminal
from deepmac.nn.ranges import NonNegativeFloat

_STEPS_BEFORE_ADVICE = 100
_MUCH = 0.2
_DRAWN_EVERY = 0.25  # seconds; reading a loss waits for the device
_TIMES = ("train/seconds_per_step", "train/data_wait")


class Progress(ProgressBar):
    """Two lines that stay at the foot of a terminal; elsewhere a plain line now and then.

    Logs the pace either way. ``train/data_wait`` is the share of the time in which a step waits for
    its batch, over the last fifty steps or so; where it stays above a fifth, one line says what to
    change.

    Args:
        line_seconds: seconds between plain lines where the output is no terminal.
    """

    def __init__(self, *, line_seconds: NonNegativeFloat = 30.0) -> None:
        super().__init__()
        self.line_seconds = line_seconds
        self.plain = not terminal.is_terminal or terminal.is_dumb_terminal
        self._enabled, self._advised = True, False
        self._live: Live | None = None
        self._screen = Screen()
        self._pace = Pace()
        self._started = self._drawn = self._last_line = 0.0
        self._evaluation: float | None = None
        self._first_step = 0

    def enable(self) -> None:
        """Show what comes."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; the pace is logged all the same."""
        self._enabled = False

    # Training.

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed run counts from where it stands."""
        self._pace = Pace()
        self._started = time.monotonic()
        self._pace.start(self._started)
        self._last_line, self._first_step = 0.0, trainer.global_step
        self._screen = Screen()
        self._screen.where = "waiting for the first batch"
        self._draw(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there."""
        self._pace.arrived(time.monotonic())

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log the pace, draw or print."""
        now, images = time.monotonic(), len(batch["images"])
        seconds = self._pace.stepped(now, images)
        # Tensors: a plain number would go to the device.
        for name, value in zip(_TIMES, (seconds, self._pace.waiting), strict=True):
            pl_module.log(name, torch.tensor(value), batch_size=images)
        if not (self._enabled and trainer.is_global_zero):
            return
        self._advise()
        due = now - self._last_line >= self.line_seconds or self._pace.steps == 1
        if self.plain and due:
            self._last_line = now
            self._look(trainer)
            print(self._screen.line(), flush=True)
        elif not self.plain and now - self._drawn >= _DRAWN_EVERY:
            self._drawn = now
            self._look(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was done, in a line that stays."""
        self._clear(trainer)
        if not (self._enabled and trainer.is_global_zero):
            return
        took = timedelta(seconds=round(time.monotonic() - self._started))
        steps = trainer.global_step - self._first_step
        text = f"{steps} {'step' if steps == 1 else 'steps'} in {took}"
        print(f"{text}: {self._speed(trainer)}" if self._pace.steps else text, flush=True)

    # Evaluation and prediction.

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A first look at whether evaluations work."""
        self._evaluates(trainer, "a first look at the evaluation")

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The training follows."""
        self._clear(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The pace counts training steps only."""
        self._evaluation_started = time.monotonic()
        if not trainer.sanity_checking:
            after = f" after step {trainer.global_step}" if trainer.state.fn == "fit" else ""
            self._evaluates(trainer, f"evaluation{after}")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One more."""
        totals: Any = (
            trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )
        self._evaluated(batch_idx + 1, totals[dataloader_idx])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the evaluation's time out of the pace."""
        if trainer.sanity_checking:
            return
        spent = time.monotonic() - self._evaluation_started
        self._evaluation = spent
        self._pace.leave_out(spent)
        if trainer.state.fn == "fit" and trainer.training:
            self._screen.batches = None
            self._look(trainer)
        else:
            self._clear(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As an evaluation."""
        self._evaluates(trainer, "evaluation")

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One more."""
        self._evaluated(batch_idx + 1, trainer.num_test_batches[dataloader_idx])

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The table follows."""
        self._clear(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As an evaluation."""
        self._evaluates(trainer, "prediction")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """One more."""
        self._evaluated(batch_idx + 1, trainer.num_predict_batches[dataloader_idx])

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A line on the file follows."""
        self._clear(trainer)

    # However it ends, nothing of the two lines stays.

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Make room for the sentence."""
        self._clear(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make room for what follows."""
        self._clear(trainer)

    # Drawing.

    def _draw(self, trainer: pl.Trainer) -> None:
        if self.plain or self._live or not (self._enabled and trainer.is_global_zero):
            return
        self._live = Live(
            self._screen,
            console=terminal,
            refresh_per_second=4,
            transient=True,
            get_renderable=lambda: self._screen,
        )
        for signals in self._signals(trainer):
            signals.tell = self._tell
        self._live.start(refresh=True)

    def _clear(self, trainer: pl.Trainer) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            for signals in self._signals(trainer):
                signals.tell = signals.write

    def _tell(self, text: str) -> None:
        """Of a signal, which may have come while a line was being drawn."""
        self._screen.note = text

    @staticmethod
    def _signals(trainer: pl.Trainer) -> list[StopSignals]:
        return [c for c in trainer.callbacks if isinstance(c, StopSignals)]  # type: ignore

    def _look(self, trainer: pl.Trainer) -> None:
        """Put what is known now on the screen."""
        screen = self._screen
        epoch, step = f"epoch {trainer.current_epoch + 1}", f"step {trainer.global_step}"
        if (trainer.max_epochs or 0) > 0:
            epoch += f"/{trainer.max_epochs}"
        if total := total_batches(trainer):
            step += f"/{math.ceil(total / trainer.accumulate_grad_batches)}"
        screen.where = f"{epoch}, {step}"
        losses = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") and name not in _TIMES
        }
        first = [name for name in ("loss", "mask") if name in losses]
        screen.losses = {name: losses[name] for name in dict.fromkeys([*first, *losses])}
        screen.speed = self._speed(trainer)
        screen.ends(rest_of(trainer, self._pace, self._evaluation))

    def _speed(self, trainer: pl.Trainer) -> str:
        rate = self._pace.images_a_second * trainer.world_size
        return f"{figure(rate)} images/s, {100 * self._pace.waiting:.0f} % data wait"

    def _evaluates(self, trainer: pl.Trainer, what: str) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            self._screen = Screen()
        self._screen.where, self._screen.batches = what, (0, None)
        self._draw(trainer)

    def _evaluated(self, done: int, of: float) -> None:
        self._screen.batches = (done, of)

    def _advise(self) -> None:
        waiting = self._pace.waiting
        if self._advised or self._pace.steps < _STEPS_BEFORE_ADVICE or waiting <= _MUCH:
            return
        self._advised = True
        print(
            f"the training waits for its data {100 * waiting:.0f} % of the time: raise "
            "data.num_workers, or keep pictures that are scaled down to data.image_size already",
            flush=True,
        )

"""SIGTERM and Ctrl-C: a training stops between two steps, saved, on all replicas at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deepmac.lightning.private import epoch_ends, stop_after_step
from deepmac.lightning.xla import device as xla

_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Terminated(SystemExit):
    """SIGTERM where no step has to be waited for."""


class StopSignals(Callback):
    """Lets the step at hand end; what half a step leaves would not resume to the same training.

    A second Ctrl-C stops at once; the last checkpoint stays as it is.

    Attributes:
        received: the signal; 0 = none yet.
        tell: says that it was heard, from within the handler.
    """

    def __init__(self) -> None:
        self.received = 0
        self.tell: Callable[[str], None] = self.write
        self._before: dict[int, Any] = {}
        self._step_before = 0
        self._within_step = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on; Lightning puts the handlers back at the end."""
        alone = trainer.world_size == 1 or not xla.runs_on(trainer)  # else see ``xla.preemption``
        if alone and threading.current_thread() is threading.main_thread():
            for number in _NAMES:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        self.received = self.received or number
        text = f"{_NAMES[signal.Signals(number)]}: stopping after this step"
        self.tell(text + (", Ctrl-C again stops at once" if number == signal.SIGINT else ""))

    @staticmethod
    def write(text: str) -> None:
        """Not print: the signal may have come within one."""
        os.write(2, f"\n{text}\n".encode())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step may take several batches."""
        if not self._within_step:
            self._step_before = trainer.global_step
        self._within_step = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Every replica hears of a signal that any of them got, after the same step."""
        if trainer.global_step != self._step_before:
            self._within_step = False
            if not epoch_ends(trainer) and self._heard(trainer):
                stop_after_step(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last step of an epoch is over when what follows is: its validation, ``best.ckpt``."""
        if self._heard(trainer):
            stop_after_step(trainer)

    def _heard(self, trainer: pl.Trainer) -> int:
        if trainer.world_size > 1 and not xla.runs_on(trainer):
            heard = torch.tensor(float(self.received), device=trainer.strategy.root_device)
            self.received = int(trainer.strategy.reduce(heard, reduce_op="max"))  # type: ignore[arg-type]
        return self.received


@contextmanager
def terminated_by_sigterm() -> Iterator[None]:
    """Within it, SIGTERM raises :class:`Terminated`, so that what is open is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def signal_behind(error: BaseException) -> int:
    """The signal that ended a run with this exception; 0 where it was none."""
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if isinstance(error, Terminated) else 0


def name_of(number: int) -> str:
    """As a user knows it."""
    return _NAMES[signal.Signals(number)]

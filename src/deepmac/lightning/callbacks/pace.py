"""How fast a training goes, and how long the rest of it takes."""

from __future__ import annotations

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

_MEMORY = 0.98
"""Share of the earlier steps' weight that each step leaves in the means: some fifty count."""


class Pace:
    """Means over the last fifty steps or so; what is between two of them can be taken out.

    The first step is forgotten with the second: it also starts workers, and may compile.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._seconds = self._images = self._waits = self._count = 0.0
        self._since = self._waited = 0.0

    def start(self, now: float) -> None:
        """The first batch is asked for."""
        self._since = now

    def arrived(self, now: float) -> None:
        """The batch is there: what passed since the last step was waiting."""
        self._waited = now - self._since

    def stepped(self, now: float, images: int) -> float:
        """A step is over; the seconds that it took, waiting included."""
        seconds, self._since = now - self._since, now
        keep = 0.0 if self.steps == 1 else _MEMORY
        self._seconds = keep * self._seconds + seconds
        self._images = keep * self._images + images
        self._waits = keep * self._waits + min(self._waited, seconds)
        self._count = keep * self._count + 1
        self.steps += 1
        return seconds

    def leave_out(self, seconds: float) -> None:
        """Something else was done between two steps."""
        self._since += seconds

    @property
    def waiting(self) -> float:
        """Share of the time in which a step waits for its batch."""
        return self._waits / max(self._seconds, 1e-9)

    @property
    def images_a_second(self) -> float:
        """Of one process."""
        return self._images / max(self._seconds, 1e-9)

    @property
    def seconds_a_batch(self) -> float | None:
        """None before the first one."""
        return self._seconds / self._count if self._count else None


def rest_of(
    trainer: pl.Trainer, pace: Pace, evaluation: float | None
) -> tuple[float, float] | None:
    """What share of a training is done, and the seconds that are left of it.

    The first limit counts, be it in epochs, steps or time, with the evaluations up to there.

    Args:
        trainer: that trains.
        pace: of its batches.
        evaluation: seconds that one takes; None while that is not known.

    Returns:
        None where nothing limits the training, or nothing can be told yet.
    """
    found = []
    each = 0.0 if evaluation is None or not trainer.limit_val_batches else evaluation
    total = total_batches(trainer)
    if total is not None and pace.seconds_a_batch is not None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        seconds = max(0.0, total - done) * pace.seconds_a_batch
        seconds += each * _evaluations(trainer, total)
        found.append((min(1.0, done / max(1, total)), seconds))
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
            elapsed = timer.time_elapsed()
            found.append((min(1.0, elapsed / max(elapsed + left, 1e-9)), max(0.0, left) + each))
    return min(found, key=lambda one: one[1]) if found else None


def total_batches(trainer: pl.Trainer) -> float | None:
    """Batches of a process in the whole training, where epochs or steps limit it."""
    limits: list[float] = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits) if limits and math.isfinite(min(limits)) else None


def _evaluations(trainer: pl.Trainer, total: float) -> int:
    """That are to come, the one at the end included."""
    every = trainer.val_check_batch * (trainer.check_val_every_n_epoch or 1)  # type: ignore
    done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return max(1, math.ceil(total / every)) - int(done // every) if math.isfinite(every) else 1

"""Watches XLA: what is compiled and when, what leaves the device; says it where it costs time."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepmac.lightning.console import say
from deepmac.lightning.private import logs_this_step
from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla.compile_counts import Counts, Expectations, Step, shapes_of
from deepmac.lightning.xla.optimizer_state import allocate_state

_SETTLING = 2
"""First steps of a run that may each be a graph of their own."""


class CompileWatch(Callback):
    """Prints what is being compiled and how long it took; warns of recompilations and fallbacks.

    Steps of one kind (the first two, the first of an epoch, those that log, those that only
    accumulate gradients, the rest) may compile once. A second time is a recompilation: it is told
    once, with what differs, as is every operator that runs on the host. Off XLA nothing happens.

    Args:
        warm_up: allocate the optimizer's state before the first step, which otherwise is a graph
            of its own. Evaluation is compiled first anyway (``trainer.num_sanity_val_steps``).
    """

    def __init__(self, *, warm_up: bool = True) -> None:
        self.warm_up = warm_up
        self.warnings: list[str] = []
        self._on = False
        self._expectations = Expectations()
        self._waits: dict[str, _Wait] = {}
        self._open: tuple[Step, Counts] | None = None
        self._first = Counts()
        self._steps = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out whether there is anything to watch."""
        self._on = xla.runs_on(trainer)
        if self._on:
            self._first = Counts.of(xla.metrics())

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the first step the same graph as all others."""
        self._steps = 0
        if self._on and self.warm_up and allocate_state(trainer.optimizers):
            xla.sync()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins; what was counted since the last one's end belongs to that."""
        if not self._on:
            return
        self._close_gap(trainer)
        logs = logs_this_step(trainer)
        accumulates = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        kind = ("training", min(self._steps, _SETTLING), batch_idx == 0, logs, accumulates)
        self._begin("training", kind, trainer.global_step, batch, reads=logs)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """The step's graph has been sent to the device."""
        if not self._on:
            return
        self._steps += 1
        self._end(trainer, "training")
        if logs_this_step(trainer):
            self._log(trainer)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in training; all batches but the first two ought to be alike."""
        if self._on:
            self._close_gap(trainer)
            kind = ("evaluation", min(batch_idx, 1))
            self._begin("evaluation", kind, batch_idx, batch, reads=False)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in training."""
        if self._on:
            self._end(trainer, "evaluation")
            self._open = None  # what follows is the scoring, once an epoch

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A training step's window ends here."""
        if self._on:
            self._close_gap(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One line about the whole training."""
        if not self._on:
            return
        self._close_gap(trainer)
        total = Counts.of(xla.metrics()) - self._first
        line = f"XLA: {_graphs(total)} in {total.seconds:.1f} s, {total.to_host} transfers to the "
        line += f"host and {total.to_device} to the device in {self._steps} training steps"
        host = ", ".join(f"{name} {times} times" for name, times in total.on_host.items())
        say(f"{line}; on the host: {host or 'no operator'}")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """The step it happened in is not judged."""
        self._open = None

    def _begin(self, phase: str, kind: Hashable, number: int, batch: Any, *, reads: bool) -> None:
        if phase not in self._waits:
            self._waits[phase] = _Wait(phase, say)
        step = Step(kind, f"{phase} step {number}", reads, shapes_of(batch))
        self._open = (step, Counts.of(xla.metrics()))

    def _end(self, trainer: pl.Trainer, phase: str) -> None:
        if self._open is None:
            return
        step, before = self._open
        now = Counts.of(xla.metrics())
        self._waits[phase].step_done(now - before)
        self._warn(trainer, self._expectations.findings(step, now - before))
        self._open = (step, now)

    def _close_gap(self, trainer: pl.Trainer) -> None:
        """Logging and saving after a step compile what they like, but must not read every time."""
        if self._open is None:
            return
        (step, before), self._open = self._open, None
        gap = Step(("after", step.kind), f"what followed {step.name}", step.reads)
        counts = Counts.of(xla.metrics()) - before
        self._warn(trainer, self._expectations.findings(gap, Counts(operators=counts.operators)))

    def _warn(self, trainer: pl.Trainer, sentences: list[str]) -> None:
        """Every replica for itself: one that recompiles holds up all."""
        place = f" (replica {trainer.global_rank})" if trainer.world_size > 1 else ""
        for sentence in sentences:
            self.warnings.append(sentence)
            print(f"XLA{place}: {sentence}", flush=True)

    def _log(self, trainer: pl.Trainer) -> None:
        """Plain numbers, straight to the loggers: as tensors they would be part of the graph."""
        total = Counts.of(xla.metrics()) - self._first
        values = {
            "xla/compiles": total.compiles,
            "xla/compile_seconds": total.seconds,
            "xla/on_host": sum(total.on_host.values()),
            "xla/transfers_to_host": total.to_host,
            "xla/transfers_to_device": total.to_device,
        }
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)


class _Wait:
    """Tells a person why nothing moves, and when it does."""

    def __init__(self, phase: str, tell: Callable[[str], None]) -> None:
        self._phase, self._tell = phase, tell
        self._started = time.monotonic()
        self._spent = Counts()
        self._steps = 0
        self._over = False
        tell(f"XLA: compiling the {phase} step; a large network takes minutes")

    def step_done(self, counts: Counts) -> None:
        """Over with the first step that compiled nothing, or the third at the latest."""
        if self._over:
            return
        self._steps += 1
        spent = self._spent
        self._spent = Counts(
            compiles=spent.compiles + counts.compiles,
            seconds=spent.seconds + counts.seconds,
            from_cache=spent.from_cache + counts.from_cache,
            unreadable=spent.unreadable + counts.unreadable,
        )
        if counts.compiles:
            self._tell(
                f"XLA: {self._phase} step compiled: {_graphs(counts)} in {counts.seconds:.1f} s"
            )
            if self._spent.unreadable and not spent.unreadable:
                self._tell(
                    f"XLA: {self._spent.unreadable} graph(s) in the cache cannot be read back by "
                    "this backend and were compiled again"
                )
        if not counts.compiles or self._steps > _SETTLING:
            self._over = True
            waited = time.monotonic() - self._started
            self._tell(f"XLA: the {self._phase} step is warm after {waited:.1f} s")


def _graphs(counts: Counts) -> str:
    cached = f" (and {counts.from_cache} from the cache)" if counts.from_cache else ""
    return f"{counts.compiles} graph(s) compiled{cached}"

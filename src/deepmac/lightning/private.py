"""What Lightning has no public name for: all of it that this project reads, calls or overrides.

And one setting of torch's compiler that has none.
torch_xla's is in :mod:`deepmac.lightning.xla.device`, with everything else of torch_xla.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, Timer, WeightAveraging
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.strategies import XLAStrategy
from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.strategies.launchers.xla import _XLALauncher
from torch import nn

__all__ = [
    "CheckpointWriter",
    "KeptWriter",
    "LaunchedStrategy",
    "SettingsCLI",
    "XLALauncher",
    "allow_compiled_kinds",
    "averaged_module",
    "count_logged_steps",
    "epoch_ends",
    "has_checkpoint_files",
    "logs_this_step",
    "observe_processes",
    "pending_row",
    "stop_after_step",
    "time_limit",
    "trainer_of",
    "validation_follows",
    "without_anonymous",
]


# Of the compiler.


def allow_compiled_kinds(count: int) -> None:
    """Compile one piece of code for that many kinds of input before giving it up."""
    import torch._dynamo.config as settings  # late: it takes a second that few runs need

    settings.recompile_limit = max(count, settings.recompile_limit)


# Of a logger.


def without_anonymous(logger: WandbLogger) -> None:
    """Leave out an argument of ``wandb.init`` that W&B has given up, and warns of."""
    logger._wandb_init.pop("anonymous", None)


# Of a trainer.


def trainer_of(module: pl.LightningModule) -> pl.Trainer | None:
    """The trainer of a module, where it has one; the public name raises without."""
    return module._trainer


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


def has_checkpoint_files(trainer: pl.Trainer) -> bool:
    """Whether somebody chose how checkpoints are written; the public name would choose one."""
    return trainer.strategy._checkpoint_io is not None


def time_limit(timer: Timer) -> float:
    """Seconds that ``trainer.max_time`` allows."""
    return timer._duration or 0.0


def averaged_module(callback: WeightAveraging) -> nn.Module | None:
    """The trained module with the averages for its weights; None before a training."""
    average = callback._average_model
    return None if average is None else average.module


# Of launchers.


def observe_processes(launch: Callable[[list[subprocess.Popen[bytes]]], None]) -> None:
    """Have ``launch`` watch the processes of a training instead of Lightning's observer."""
    subprocess_script._launch_process_observer = launch  # type: ignore[assignment]


class XLALauncher(_XLALauncher):
    """Starts the processes of an XLA strategy."""

    @property
    def num_processes(self) -> int:
        """How many it starts."""
        return int(self._strategy.num_processes)  # type: ignore[attr-defined]


class LaunchedStrategy(XLAStrategy):
    """An XLA strategy that says which launcher it takes."""

    def make_launcher(self) -> XLALauncher:
        """Of this strategy."""
        return XLALauncher(self)

    def _configure_launcher(self) -> None:
        self._launcher = self.make_launcher()

    @property
    def has_launched(self) -> bool:
        """Whether its processes run."""
        return bool(self._launched)


# Classes with methods to override.


class SettingsCLI(LightningCLI):
    """LightningCLI whose settings come from the user alone."""

    def _parse_ckpt_path(self) -> None:
        """To Lightning a checkpoint overrules the user; to us it stands in for what is not said."""

    def portable_settings(self) -> None:
        """Keep the settings as they are now in ``config_dump``."""
        self._dump_config()


class CheckpointWriter(ModelCheckpoint):
    """A ModelCheckpoint that can be asked and told."""

    @property
    def saved_step(self) -> int:
        """Of the last file that this run wrote."""
        return int(self._last_global_step_saved)

    @saved_step.setter
    def saved_step(self, step: int) -> None:
        self._last_global_step_saved = step

    def is_due(self, step: int) -> bool:
        """By ``every_n_train_steps``."""
        return step % self._every_n_train_steps == 0

    def saves_at_epoch_end(self, trainer: pl.Trainer) -> bool:
        """Rather than after a validation."""
        return bool(self._should_save_on_train_epoch_end(trainer))

    def save_now(self, trainer: pl.Trainer) -> None:
        """Unless this is no training, or the step is saved already."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class KeptWriter(ExperimentWriter):
    """Lightning's writer of ``metrics.csv`` without its deleting of a file that is there."""

    def _check_log_dir_exists(self) -> None:
        """Lightning's deletes the file."""

"""Settings held against their types and against this machine, before anything is read."""

from __future__ import annotations

import os
import pkgutil
from pathlib import Path
from typing import Annotated

import torch
from jsonargparse import Namespace

from deepmac.errors import ConfigError
from deepmac.lightning.arguments import check_arguments
from deepmac.lightning.console import say
from deepmac.nn.ranges import PositiveFloat, PositiveInt, Range, Seed

_Limit = Annotated[int, Range(0)] | Annotated[float, Range(0, 1)] | None


class _Run:
    seed_everything: Seed | bool


class _Trainer:
    """What Lightning's trainer fails with later, or takes for something else."""

    num_nodes: PositiveInt
    max_epochs: Annotated[int, Range(-1)] | None
    min_epochs: Annotated[int, Range(0)] | None
    max_steps: Annotated[int, Range(-1, 2**53)]
    min_steps: Annotated[int, Range(0)] | None
    limit_train_batches: _Limit
    limit_val_batches: _Limit
    limit_test_batches: _Limit
    limit_predict_batches: _Limit
    overfit_batches: _Limit
    val_check_interval: PositiveInt | Annotated[float, Range(0, 1, open_low=True)] | None
    check_val_every_n_epoch: PositiveInt | None
    num_sanity_val_steps: Annotated[int, Range(-1)] | None
    log_every_n_steps: PositiveInt | None
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: PositiveFloat | None
    reload_dataloaders_every_n_epochs: Annotated[int, Range(0)]


def check_numbers(settings: Namespace) -> None:
    """The run's and the trainer's numbers, and those of our own callbacks and loggers.

    Raises:
        ConfigError: one is out of its range.
    """
    for name in ("model", "data", "trainer"):
        if not isinstance(found := settings.get(name), Namespace):
            raise ConfigError(f"{name} is {found!r:.60}, and holds settings by their names")
    check_arguments("", {"seed_everything": settings.get("seed_everything")}, _Run)
    check_arguments("trainer", vars(settings.trainer), _Trainer)
    _check_processes(settings.trainer)
    for group in ("callbacks", "logger"):
        chosen = settings.trainer.get(group)
        for entry in chosen if isinstance(chosen, list) else [chosen]:
            path = getattr(entry, "class_path", "")
            if path.startswith("deepmac."):
                given = vars(entry.get("init_args") or Namespace())
                check_arguments(path.rpartition(".")[2], given, pkgutil.resolve_name(path))


def _check_processes(trainer: Namespace) -> None:
    """On a processor every device is a process of its own, of some hundred megabytes."""
    on_cpu = trainer.get("accelerator") in ("cpu", "auto") and not torch.cuda.is_available()
    cores, devices = os.cpu_count() or 1, str(trainer.get("devices"))
    most = max(8, 4 * cores)
    if on_cpu and devices.isdigit() and int(devices) > most:
        raise ConfigError(
            f"trainer.devices={devices:.40} starts as many processes, and this machine has {cores} "
            f"cores: give at most {most}"
        )


def synchronized_norms(trainer: Namespace) -> bool:
    """``trainer.sync_batchnorm``, where torch can do it: on GPUs."""
    wanted = bool(trainer.get("sync_batchnorm"))
    on_gpu = trainer.get("accelerator") in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    if wanted and not on_gpu:
        say(
            "trainer.sync_batchnorm: torch synchronises the batch norms of timm backbones on GPUs "
            "only; here each process keeps to its own images"
        )
    return wanted and on_gpu


def chosen_checkpoint(path: str | None, run_dir: Path, *, training: bool = True) -> str | None:
    """The checkpoint that ``ckpt_path`` means.

    ``last`` stays: the trainer finds the newest of the run directory by itself. Where there is none
    a training begins; nothing else has anything to do then.

    Raises:
        ConfigError: it is not there.
    """
    if path == "best":
        best = run_dir / "checkpoints" / "best.ckpt"
        if not best.is_file():
            raise ConfigError(f"ckpt_path=best: there is no {best}; give the file's path")
        return str(best)
    if path == "last" and not training and not any((run_dir / "checkpoints").glob("last*.ckpt")):
        raise ConfigError(
            f"ckpt_path=last: there is none in {run_dir / 'checkpoints'}; give the file's path, or "
            "hydra.run.dir=RUN of a training"
        )
    known_words = path in (None, "last", "hpc") or "://" in str(path)
    if not known_words and not Path(str(path)).is_file():
        raise ConfigError(f"ckpt_path={path}: no such file (`last` takes the run directory's own)")
    return path

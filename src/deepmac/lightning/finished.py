"""Which jobs of a sweep are done already, so that the same command goes on where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepmac.errors import ConfigError
from deepmac.files import parse_yaml
from deepmac.lightning.callbacks.evaluation import monitored
from deepmac.lightning.flat import leaves

_NO_MATTER = {"data.num_workers", "data.val_batch_size", "data.check_images"}
"""Settings that change the pace of a run and not its result."""


def finished_value(run_dir: str | Path, config: Mapping[str, Any]) -> float | None:
    """The monitored value in a run directory, if the run that ``config`` describes is done.

    Done means that ``metrics.json`` was written at the last step. A run whose length is given in
    epochs is never taken as done: it goes on from its checkpoint, which costs one evaluation.

    Args:
        run_dir: need not exist.
        config: a composed LightningCLI configuration.

    Raises:
        ConfigError: the directory holds a run with other settings.
    """
    config_file, metrics_file = Path(run_dir) / "config.yaml", Path(run_dir) / "metrics.json"
    if not config_file.is_file():
        return None
    _check_same(run_dir, parse_yaml(config_file.read_text()), config)
    if not metrics_file.is_file():
        return None
    metrics = json.loads(metrics_file.read_text())
    if metrics["step"] != config["trainer"]["max_steps"]:
        return None
    detector = config["model"].get("detector", True)
    section, metric, group = monitored(detector=detector).split("/")
    value = metrics[section][metric][group]
    return math.nan if value is None else float(value)


def _check_same(run_dir: str | Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    before, now = dict(_settings(stored)), dict(_settings(wanted))
    for name in now:
        if name in before and before[name] != now[name] and name not in _NO_MATTER:
            raise ConfigError(
                f"{run_dir} holds a run with {name}={before[name]}, not {now[name]}: choose "
                "another hydra.sweep.dir, or delete that run"
            )


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a run's result depends on, by dotted name."""
    chosen = {name: config.get(name) for name in ("seed_everything", "model", "data")}
    for name, value in leaves(chosen):
        yield name, list(value) if isinstance(value, tuple) else value
    for name in ("max_steps", "max_epochs"):
        yield f"trainer.{name}", config["trainer"][name]

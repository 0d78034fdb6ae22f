"""Which LightningModule a configuration or a checkpoint is about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from deepmac.errors import ConfigError, UserError
from deepmac.files import parse_yaml
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.deepmarc_module import DeepMARCModule
from deepmac.lightning.module import SegmentationModule
from deepmac.lightning.renamed import check_words, todays_file
from deepmac.losses.options import nested_names
from deepmac.models.checkpoint import read_checkpoint

SYSTEMS: dict[str, type[SegmentationModule]] = {
    module.system: module for module in (DeepMACModule, DeepMARCModule)
}


def chosen_system(config: Mapping[str, Any] | None, options: Iterable[str]) -> str:
    """The ``system`` of a composed configuration, or of the files that ``options`` name.

    Args:
        config: a composed configuration; None when a ``--config`` file holds all.
        options: LightningCLI's own options, of which the last word counts.

    Returns:
        A key of ``SYSTEMS``; what says nothing is about Deep-MAC.

    Raises:
        ConfigError: another name.
    """
    name: Any = (config or {}).get("system", "deepmac")
    options = list(options)
    check_words(options)
    for option, value in _pairs(options):
        if option == "--system":
            name = value
        elif option in ("--config", "-c"):
            name = _of_file(Path(value)) or name
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r:.60}; there are {' and '.join(SYSTEMS)}")
    return str(name)


def with_model_of(checkpoint: Any, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with the system and the model's settings of a checkpoint."""
    if checkpoint is None or not Path(str(checkpoint)).is_file():
        return config
    try:
        found = read_checkpoint(str(checkpoint))
    except UserError:  # whoever loads it in earnest says what is wrong with it
        return config
    system = found.system
    model = {name: value for name, value in found.settings.items() if not name.startswith("_")}
    if isinstance(model.get("losses"), Mapping):
        model["losses"] = nested_names(model["losses"])
    ours = config["model"] if system == config.get("system", "deepmac") else {}
    return {**config, "system": system, "model": {**ours, **model}}


def chosen_option(options: Iterable[str], name: str, default: Any) -> Any:
    """The last value of an option, else ``default``."""
    values = [value for option, value in _pairs(options) if option == name]
    return values[-1] if values else default


def todays_options(options: Iterable[str], folder: Path) -> list[str]:
    """Options whose ``--config`` names a file under today's names; see ``todays_file``."""
    words: list[str] = []
    for word in options:
        name, equals, path = word.partition("=")
        if words and words[-1] in ("--config", "-c"):
            word = str(todays_file(Path(word), folder))
        elif equals and name in ("--config", "-c"):
            word = f"{name}={todays_file(Path(path), folder)}"
        words.append(word)
    return words


def optimizer_of_model(options: Iterable[str]) -> list[str]:
    """Lightning's spelling ``--optimizer=CLASS --optimizer.NAME=VALUE`` as our ``model.optimizer``.

    Raises:
        ConfigError: arguments of an optimizer that is not named; another schedule than ours.
    """
    kept: list[str] = []
    path, arguments = None, {}
    words = iter(options)
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--lr_scheduler"):
            raise ConfigError(
                f"{name}: the schedule is model.lr_schedule, model.warmup_steps and model.lr_drops"
            )
        if name != "--optimizer" and not name.startswith("--optimizer."):
            kept.append(word)
            continue
        value = value if equals else next(words, "")
        if name == "--optimizer":
            path = value
        else:
            key = name.removeprefix("--optimizer.").removeprefix("init_args.")
            arguments[key] = parse_yaml(value)
    if path is None and arguments:
        raise ConfigError(f"--optimizer.{next(iter(arguments))} needs --optimizer=CLASS before it")
    if path is not None:
        rate = arguments.pop("lr", None)
        path = path if "." in path or path in ("adam", "sgd") else f"torch.optim.{path}"
        chosen = {"class_path": path, "init_args": arguments} if arguments else path
        kept.append(f"--model.optimizer={json.dumps(chosen)}")
        kept += [] if rate is None else [f"--model.lr={rate}"]
    return kept


def _pairs(options: Iterable[str]) -> list[tuple[str, str]]:
    """``--name=value`` and ``--name value`` alike."""
    words = [part for word in options for part in _split(word)]
    return list(pairwise(words))


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("-") else [word]


def _of_file(path: Path) -> Any:
    """What a configuration file says of the system; unreadable ones are reported when parsed."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return content.get("system") if isinstance(content, dict) else None

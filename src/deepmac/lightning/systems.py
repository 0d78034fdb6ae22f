"""Which LightningModule a configuration or a checkpoint is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

from deepmac.errors import ConfigError
from deepmac.lightning.deepmac_module import DeepMACModule
from deepmac.lightning.deepmarc_module import DeepMARCModule
from deepmac.lightning.module import SegmentationModule
from deepmac.lightning.renamed import check_file, check_words

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
            check_file(Path(value))
            name = _of_file(Path(value)) or name
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r}; there are {' and '.join(SYSTEMS)}")
    return str(name)


def with_model_of(checkpoint: Any, config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with system and model of a checkpoint that is of another system than it says."""
    if checkpoint is None or not Path(str(checkpoint)).is_file():
        return config
    try:
        content = torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whoever loads it in earnest says what is wrong with it
        return config
    system = content.get("deepmac_system", "deepmac")
    if system == config.get("system", "deepmac"):
        return config
    settings = content.get("hyper_parameters", {})
    model = {name: value for name, value in settings.items() if not name.startswith("_")}
    return {**config, "system": system, "model": model}


def _pairs(options: Iterable[str]) -> list[tuple[str, str]]:
    """``--name=value`` and ``--name value`` alike."""
    words = [part for word in options for part in _split(word)]
    return list(pairwise(words))


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("-") else [word]


def _of_file(path: Path) -> Any:
    """What a configuration file says of the system; unreadable ones are reported when parsed."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content.get("system") if isinstance(content, dict) else None

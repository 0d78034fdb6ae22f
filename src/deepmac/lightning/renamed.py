"""Settings that had other names once: an old command or file is told the new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deepmac.errors import ConfigError

WEAK_LOSSES = ("box_consistency", "color_consistency", "self_supervision", "point_supervision")
"""As in ``deepmac.losses.options``, which is torch's; a command line is read before that."""
_VALUES = {
    "experiment=deepmarc_voc_to_nonvoc_spinenet143": "deepmarc_voc_to_nonvoc_convnext_base",
    "experiment=deepmarc_voc_to_nonvoc_default_head": "deepmarc_voc_to_nonvoc_mask_rcnn_head",
    "mask_head=default": "mask_rcnn",
    "model.mask_head=default": "mask_rcnn",
}
_FOLLOWS = {
    "data.mask_size": "model.mask_size",
    "data.box_margin": "model.box_margin",
    "data.stride": "model.stride",
    "data.compat": "model.compat",
    "data.full_resolution_masks": "model.predict_full_resolution_masks",
}
"""Settings that are gone: the data asks the model."""
_LIGHTNING = "deepmac.lightning."
_MODULES = {
    "evaluation_callback": "callbacks.evaluation",
    "final_evaluation": "callbacks.final_evaluation",
    "pictures": "callbacks.pictures",
    "report": "callbacks.report",
    "last_checkpoint": "callbacks.last_checkpoint",
    "progress": "callbacks.progress",
    "ema": "callbacks.ema",
    "metrics_csv": "callbacks.metrics_csv",
    "tpu": "xla.strategies",
    "compile_watch": "xla.compile_watch",
}


def check_words(words: Iterable[str]) -> None:
    """Overrides and options of a command line.

    Raises:
        ConfigError: one has an old name; it says the new one.
    """
    for word in words:
        name, _, value = word.lstrip("+~-").partition("=")
        for said in _new_names(name, value):
            raise ConfigError(said)


def check_file(path: Path) -> None:
    """A flat configuration file; one that cannot be read is the parser's to report.

    Raises:
        ConfigError: as :func:`check_words`, with the file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return
    for name, value in _leaves("", content):
        for said in _new_names(name, str(value)):
            raise ConfigError(f"{path}: {said}")


def _new_names(name: str, value: str) -> Iterator[str]:
    loss = name.removeprefix("model.losses.")
    group = next((known for known in WEAK_LOSSES if loss.startswith(f"{known}_")), None)
    if group is not None and loss != name:
        yield f"{name} is now model.losses.{group}.{loss.removeprefix(f'{group}_')}"
    if name in _FOLLOWS:
        yield f"there is no {name} any more: leave it out, the data follows {_FOLLOWS[name]}"
    if f"{name}={value}" in _VALUES:
        yield f"{name}={value} is now {name}={_VALUES[f'{name}={value}']}"
    if name.endswith("class_path") and value.startswith(_LIGHTNING):
        module, _, kind = value.removeprefix(_LIGHTNING).rpartition(".")
        if module in _MODULES:
            yield f"class_path {value} is now {_LIGHTNING}{_MODULES[module]}.{kind}"


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(prefix, inner)
    else:
        yield prefix, value

"""Settings that had other names once: a command is told the new ones, a file is read by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deepmac.errors import ConfigError
from deepmac.files import parse_yaml
from deepmac.lightning.arguments import check_whole_numbers
from deepmac.lightning.flat import leaves

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
_GONE = {"deepmac.lightning.callbacks.progress.Progress": ("refresh_rate",)}
"""Arguments that nothing takes the place of, by today's class."""
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


def todays_file(path: Path, folder: Path) -> Path:
    """A flat configuration file under today's names, as a run of an older version left it.

    Args:
        path: what the user named; a file that cannot be read is the parser's to report.
        folder: where another one is written if this one has old names.

    Raises:
        ConfigError: a setting that the data had for itself contradicts the model's, or a number is
            too large for any.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return path
    check_whole_numbers(content, str(path))
    old = [
        said
        for name, value in leaves(content, into_lists=True)
        for said in _new_names(name, str(value))
    ]
    if not old:
        return path
    from deepmac.lightning.console import say
    from deepmac.losses.options import nested_names

    model, data = content.get("model"), content.get("data")
    if isinstance(model, dict) and isinstance(model.get("losses"), dict):
        model["losses"] = nested_names(model["losses"])
    if isinstance(model, dict) and model.get("mask_head") == "default":
        model["mask_head"] = _VALUES["mask_head=default"]
    if isinstance(data, dict):
        _drop_what_follows(path, data, model if isinstance(model, dict) else {})
    for gone in ("optimizer", "lr_scheduler"):  # Lightning's own spelling, which said nothing
        if content.get(gone, ...) is None:
            del content[gone]
    renewed = folder / f"todays_{path.name}"
    renewed.write_text(yaml.safe_dump(_todays_classes(content), sort_keys=False))
    say(f"{path} is of an older version and is read by today's names: {old[0]}, and so on")
    return renewed


def _drop_what_follows(path: Path, data: dict[str, Any], model: Mapping[str, Any]) -> None:
    for old, new in _FOLLOWS.items():
        name, twin = old.removeprefix("data."), new.removeprefix("model.")
        if name in data and twin in model and data[name] != model[twin]:
            raise ConfigError(
                f"{path}: {old}={data[name]} contradicts {new}={model[twin]}, which the data "
                "follows: leave it out"
            )
        data.pop(name, None)


def _todays_classes(content: Any) -> Any:
    if isinstance(content, list):
        return [_todays_classes(one) for one in content]
    if not isinstance(content, dict):
        return content
    today = {name: _todays_classes(value) for name, value in content.items()}
    if "class_path" in today:
        today["class_path"] = _todays_class(str(today["class_path"]))
        for gone in _GONE.get(today["class_path"], ()):
            (today.get("init_args") or {}).pop(gone, None)
    return today


def _todays_class(path: str) -> str:
    module, _, kind = path.removeprefix(_LIGHTNING).rpartition(".")
    known = path.startswith(_LIGHTNING) and module in _MODULES
    return f"{_LIGHTNING}{_MODULES[module]}.{kind}" if known else path


def _new_names(name: str, value: str) -> Iterator[str]:
    loss = name.removeprefix("model.losses.")
    group = next((known for known in WEAK_LOSSES if loss.startswith(f"{known}_")), None)
    if group is not None and loss != name:
        yield f"{name} is now model.losses.{group}.{loss.removeprefix(f'{group}_')}"
    if name in _FOLLOWS:
        yield f"there is no {name} any more: leave it out, the data follows {_FOLLOWS[name]}"
    if f"{name}={value}" in _VALUES:
        yield f"{name}={value} is now {name}={_VALUES[f'{name}={value}']}"
    if name.endswith("class_path") and (today := _todays_class(value)) != value:
        yield f"class_path {value} is now {today}"

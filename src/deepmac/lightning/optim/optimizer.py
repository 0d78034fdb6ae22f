"""The optimizer that the settings of a model name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from deepmac.errors import ConfigError, one_sentence
from deepmac.lightning.optim.adam import Adam
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from deepmac.nn.extensions import named_class

OptimizerName = str | dict[str, Any]
"""``adam``, ``sgd``, the path of a class, or ``{class_path: ..., init_args: {...}}``."""


def build_optimizer(
    groups: list[dict[str, Any]], settings: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Over parameter groups that may have a learning rate of their own.

    Args:
        groups: as torch takes them.
        settings: ``optimizer, lr, weight_decay, adam_epsilon``; with ``compat``, ``adam`` is
            TensorFlow's. A class gets ``lr``, ``weight_decay`` where that is above 0, and its
            ``init_args``.

    Raises:
        ConfigError: no such optimizer, or arguments that it does not take.
    """
    lr, decay, chosen = settings["lr"], settings["weight_decay"], settings["optimizer"]
    if chosen == "adam":
        common = {"lr": lr, "eps": settings["adam_epsilon"], "weight_decay": decay}
        if settings.get("compat") is not None:
            return TensorFlowAdam(groups, **common, decoupled_weight_decay=True)
        return Adam(groups, **common, decoupled_weight_decay=decay > 0)
    if chosen == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=decay)
    path, given = _spelled(chosen)
    arguments = {"lr": lr, **({"weight_decay": decay} if decay else {}), **given}
    try:
        kind = named_class(path, torch.optim.Optimizer, "an optimizer")
        return kind(groups, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.optimizer={path}: {one_sentence(error)}") from error


def optimizer_path(chosen: OptimizerName) -> str:
    """The path of the class, or the short name."""
    return chosen if chosen in ("adam", "sgd") else _spelled(chosen)[0]


def _spelled(chosen: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(chosen, str) and "." in chosen:
        return chosen, {}
    if isinstance(chosen, Mapping) and chosen.keys() <= {"class_path", "init_args"}:
        arguments = chosen.get("init_args") or {}
        if isinstance(chosen.get("class_path"), str) and isinstance(arguments, Mapping):
            return chosen["class_path"], dict(arguments)
    raise ConfigError(
        f"model.optimizer={chosen}: give adam, sgd, a class such as torch.optim.RAdam, or "
        "{class_path: torch.optim.RAdam, init_args: {betas: [0.9, 0.99]}}"
    )

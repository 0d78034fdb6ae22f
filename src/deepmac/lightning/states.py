"""A checkpoint's states held against those of the training that goes on from it.

Lightning and torch take over whatever a file says; a value of another type would fail a step, or an
epoch, later and far from the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

_LARGEST = 2**53
_LARGEST_NUMBER = torch.finfo(torch.float32).max
_KNOWN = ("deepmac.", "pytorch_lightning.")
"""Packages whose callbacks keep one type for each of their states."""


def check_callbacks(trainer: pl.Trainer, given: Any) -> None:
    """Before the callbacks take over their states.

    Args:
        trainer: one whose callbacks have not begun.
        given: the checkpoint's ``callbacks``.

    Raises:
        ValueError: a state has another type, with its name.
    """
    if given is None:
        return
    _mapping("callbacks", given)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key, kind = callback.state_key, type(callback)
        if key not in given or not kind.__module__.startswith(_KNOWN):
            continue
        _compare(f"callbacks.{kind.__name__}", callback.state_dict(), given[key])
        if isinstance(callback, ModelCheckpoint):
            _check_scores(given[key])


def check_training(trainer: pl.Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Before loops, optimizers and schedules take over their states.

    Args:
        trainer: one whose strategy is set up.
        checkpoint: all of it.

    Raises:
        ValueError: a state has another type, or lies out of any training's range, with its name.
    """
    for name in ("global_step", "epoch"):
        _compare(name, 0, checkpoint.get(name), counts=True)
    loops = _mapping("loops", checkpoint.get("loops", {}))
    own = trainer.fit_loop.state_dict()
    own.pop("state_dict", None)  # of the loaders, which have none
    _compare("loops.fit_loop", own, loops.get("fit_loop", {}), counts=True)
    optimizers = _sequence("optimizer_states", checkpoint.get("optimizer_states", []))
    for optimizer, given in zip(trainer.optimizers, optimizers, strict=False):
        name = "optimizer_states"
        _compare(name, {"param_groups": optimizer.state_dict()["param_groups"]}, given)
        if not all("lr" in group for group in given.get("param_groups", [])):
            raise ValueError(f"{name}.param_groups lacks 'lr'")
        _check_moments(f"{name}.state", given.get("state", {}))
    schedules = _sequence("lr_schedulers", checkpoint.get("lr_schedulers", []))
    for config, given in zip(trainer.lr_scheduler_configs, schedules, strict=False):
        _compare("lr_schedulers", config.scheduler.state_dict(), given)


def _compare(name: str, own: Any, given: Any, *, counts: bool = False) -> None:
    """Hold what is given against a training's own, which says types and lengths.

    Args:
        name: of the state, for the message.
        own: of a training that has not begun.
        given: by the file.
        counts: whole numbers count something; elsewhere ``weight_decay=0`` may have been 0.1.
    """
    fits = True
    if isinstance(own, Mapping):
        _mapping(name, given)
        for key, value in own.items():
            if key in given:
                _compare(f"{name}.{key}", value, given[key], counts=counts)
    elif isinstance(own, list | tuple):
        _sequence(name, given)
        if len(own) and len(given) != len(own):
            raise ValueError(f"{name} has {len(given)} entries, not {len(own)}")
        for value, other in zip(own, given, strict=False):
            _compare(name, value, other, counts=counts)
    elif isinstance(own, bool):
        fits = isinstance(given, bool)
    elif isinstance(own, int) and counts:
        fits = type(given) is int and 0 <= given < _LARGEST
    elif isinstance(own, int | float):
        fits = isinstance(given, int | float | Tensor) and not isinstance(given, bool)
        fits = fits and (abs(given) <= _LARGEST_NUMBER or not math.isfinite(own))
    elif isinstance(own, str):
        fits = isinstance(given, str | None)
    if not fits:
        raise ValueError(f"{name} is {given!r:.40}")


def _check_scores(state: Mapping[str, Any]) -> None:
    """The scores that the best checkpoints are compared by; there may be none yet."""
    best = {f"best_k_models.{key}": v for key, v in state.get("best_k_models", {}).items()}
    names = ("best_model_score", "current_score", "kth_value")
    for name, value in (best | {name: state.get(name) for name in names}).items():
        score = value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, float)
        if not (score or value is None):
            raise ValueError(f"callbacks.ModelCheckpoint.{name} is {value!r:.40}")


def _check_moments(name: str, given: Any) -> None:
    """What an optimizer keeps of each parameter: the same of all."""
    first: dict[str, type] = {}
    for moments in _mapping(name, given).values():
        types = _types(name, moments)
        first = first or types
        if types and types != first:
            raise ValueError(f"{name} is not of one kind for all parameters")


def _types(name: str, moments: Any) -> dict[str, type]:
    return {key: type(value) for key, value in _mapping(name, moments).items()}


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} is {given!r:.40}")
    return given


def _sequence(name: str, given: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise ValueError(f"{name} is {given!r:.40}")
    return given

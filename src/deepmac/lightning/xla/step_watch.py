"""Training steps on XLA: looked at every few steps, refused where XLA cannot do them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import XLAStrategy
from torch import Tensor

from deepmac.errors import ConfigError
from deepmac.lightning.checkpoint_files import NotFinite
from deepmac.lightning.private import logs_this_step, stop_after_step
from deepmac.lightning.xla import device as xla
from deepmac.lightning.xla import preemption
from deepmac.lightning.xla.step_report import Look, StepReport


class StepWatch:
    """Reads the losses of a run once every ``log_every_n_steps``, after that step's graph.

    Args:
        trainer: of the run.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self._report: StepReport | None = None
        self._seen: dict[str, float] | None = None

    def step(self, losses: Mapping[str, Tensor], image_ids: Tensor) -> None:
        """Take in a training step; when it is one to be logged, look at it once it has run."""
        if self._report is None:
            self._report = StepReport(self._trainer.world_size, xla.all_reduce_sum)
        # A single process hears SIGTERM by Lightning's own means.
        alone = not isinstance(self._trainer.strategy, XLAStrategy)
        self._report.add(losses, image_ids, stop=None if alone else preemption.requested())
        if logs_this_step(self._trainer):
            xla.after_step(self._look, *self._report.tensors())

    def take(self) -> dict[str, float] | None:
        """The losses of the last look, once."""
        seen, self._seen = self._seen, None
        return seen

    def check(self) -> None:
        """Look now: what is saved must not be spoiled. Every replica calls it.

        Raises:
            LossNotFinite: a loss since the last look was not.
        """
        if self._report is not None and not self._report.empty:
            numbers, images = self._report.tensors()
            self._judge(*xla.fetch({"numbers": numbers, "images": images}).values())

    def _judge(self, numbers: Tensor, images: Tensor) -> Look:
        assert self._report is not None
        look = self._report.read(numbers, images)
        if look.any_bad:
            raise LossNotFinite(self._sentence(look))
        return look

    def _look(self, numbers: Tensor, images: Tensor) -> None:
        look = self._judge(numbers, images)
        if look.stop:
            # Every replica sees this after the same step; Lightning stops at that step's end.
            stop_after_step(self._trainer)
        self._seen = look.losses

    def _sentence(self, look: Look) -> str:
        """Every replica was told that there is a bad loss, so every one takes part."""
        looks = [look]
        if self._trainer.world_size > 1:
            looks = [Look(*pickle.loads(part)) for part in xla.gather_bytes(pickle.dumps(look))]
        first = max((one for one in looks if one.bad_images), key=lambda one: one.steps_ago)
        step = self._trainer.global_step - first.steps_ago
        return not_finite(first.bad_losses, first.bad_images, step)


class LossNotFinite(NotFinite):
    """A loss that may have reached the weights already."""


def not_finite(losses: Mapping[str, float], image_ids: list[int], step: int) -> str:
    """One sentence about a loss that is not finite."""
    parts = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    ids = ", ".join(map(str, image_ids))
    return (
        f"the loss is not finite at step {step} ({parts}) on images {ids}: look at these images "
        "with `deepmac check-data`, or lower model.lr"
    )


def refuse_on_xla(trainer: Any, settings: Mapping[str, Any]) -> None:
    """Stop before anything is compiled.

    Raises:
        ConfigError: a setting that XLA cannot follow.
    """
    averaging = [c for c in trainer.callbacks if isinstance(c, WeightAveraging)]
    if averaging:
        raise ConfigError(
            f"{type(averaging[0]).__name__} has not been shown to work on XLA, where it is known "
            "to stop or to spoil the weights: use callbacks=default there"
        )
    if settings["compile"]:
        raise ConfigError("model.compile=true is not for XLA, which compiles every step anyway")
    if settings["checkpoint_activations"] and not settings["backbone"].startswith("hourglass"):
        raise ConfigError(
            f"model.checkpoint_activations=true of timm's {settings['backbone']} knows no XLA: set "
            "it to false, or take an hourglass backbone"
        )
    if settings.get("crop_impl") == "torchvision":
        raise ConfigError(
            "model.crop_impl=torchvision leaves the device in every step on XLA: use auto, which "
            "takes the separable form there"
        )

"""Objects with a box alone learn masks from the average of the weights, while it is made."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback

from deepmac.errors import ConfigError
from deepmac.lightning.callbacks.ema import WarmedUpEMA
from deepmac.losses.taught_masks import with_taught_masks
from deepmac.losses.weak import warmup
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.ranges import NonNegativeInt


class AveragedTeacher(Callback):
    """Before each step the averaged network gives masks to the batch's objects that have none.

    A resumed run goes on exactly: the average is part of its checkpoint, and nothing is drawn.

    Args:
        warmup_start: optimizer step before which the teacher knows too little to be heard.
        warmup_steps: steps from there until its masks count fully; 0 = at once.
    """

    def __init__(
        self, *, warmup_start: NonNegativeInt = 100, warmup_steps: NonNegativeInt = 100
    ) -> None:
        self.warmup_start, self.warmup_steps = warmup_start, warmup_steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse trainings without what it needs.

        Raises:
            ConfigError: no average of the weights, or masks that it cannot make.
        """
        _average(trainer)
        network: Any = pl_module.network
        if not isinstance(network, DeepMAC) or network.full_resolution:
            raise ConfigError(
                "callbacks.averaged_teacher teaches Deep-MAC's masks within boxes alone: leave it "
                "out with model=deepmarc and model.predict_full_resolution_masks=true"
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Fill the masks in; ``batch`` is what the step is about to see."""
        trust = float(warmup(trainer.global_step, self.warmup_start, self.warmup_steps))
        averaged: Any = _average(trainer).averaged
        if trust == 0 or averaged is None:
            return
        teacher = averaged.network
        was_training = teacher.training
        teacher.eval()
        with trainer.precision_plugin.forward_context():
            taught = with_taught_masks(
                batch,
                teacher,
                batch["images"],
                threshold=averaged.hparams["mask_threshold"],
                trust=trust,
            )
        teacher.train(was_training)
        batch.update(taught)


def _average(trainer: pl.Trainer) -> WarmedUpEMA:
    found = [c for c in trainer.callbacks if isinstance(c, WarmedUpEMA)]  # type: ignore[attr-defined]
    if not found:
        raise ConfigError(
            "callbacks.averaged_teacher needs an average of the weights: choose "
            "callbacks=averaged_teacher, which has one, or add callbacks.ema"
        )
    return found[0]

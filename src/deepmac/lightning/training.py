"""The arguments that every module has, and the optimizer and schedule that they ask for."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pytorch_lightning.callbacks import Timer

from deepmac.lightning.module import SegmentationModule
from deepmac.lightning.optim.optimizer import OptimizerName, build_optimizer
from deepmac.lightning.optim.schedule import ScheduleShape, learning_rate_factor
from deepmac.nn.ranges import NonNegativeFloat, OpenShare, PositiveFloat, Range


class Training(SegmentationModule):
    """Comes before a system's own class in the bases of its module, and hands it the rest.

    Args:
        num_classes: class slots; null takes the number of categories in the training json.
        mask_threshold: a pixel belongs to a mask above this probability.
        init_from: checkpoint or weight file to start from; what did not fit is reported.
        freeze: ``backbone``: its weights, norms included, stay as they start;
            ``all_but_click_head``, ``all_but_edge_head``: so does all else that this head is not.
        optimizer: ``adam`` (AdamW with weight decay; TensorFlow's with ``compat``), ``sgd`` with a
            momentum of 0.9, or a class: see
            :func:`deepmac.lightning.optim.optimizer.build_optimizer`.
        lr: peak learning rate.
        lr_schedule: ``cosine`` to zero at the last step, ``steps`` (where there are ``lr_drops``)
            or ``constant``.
        weight_decay: of every weight; decoupled (AdamW) under ``adam``.
        adam_epsilon: under ``adam``; the original's is 1e-7.
        backbone_lr_factor: learning rate of the backbone relative to ``lr``.
        channels_last: memory format of images and weights; faster on most devices.
        compile: run backbone and heads through ``torch.compile``.
        **others: of the system.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Range(1, 1_000_000)] | None = None,
        mask_threshold: OpenShare = 0.5,
        init_from: str | None = None,
        freeze: Literal["backbone", "all_but_click_head", "all_but_edge_head"] | None = None,
        optimizer: OptimizerName = "adam",
        lr: PositiveFloat = 1e-3,
        lr_schedule: ScheduleShape = "cosine",
        weight_decay: NonNegativeFloat = 0.0,
        adam_epsilon: PositiveFloat = 1e-7,
        backbone_lr_factor: NonNegativeFloat = 1.0,
        channels_last: bool = True,
        compile: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(**others)

    def configure_optimizers(self) -> Any:
        """The optimizer with linear warm-up and the decay that was asked for."""
        settings = self.hparams
        network = self._built
        backbone = {id(p) for p in network.backbone.parameters()}
        learning = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in learning if id(p) in backbone],
                "lr": settings["lr"] * settings["backbone_lr_factor"],
            },
            {"params": [p for p in learning if id(p) not in backbone]},
        ]
        optimizer = build_optimizer([group for group in groups if group["params"]], settings)
        for group in optimizer.param_groups:
            group["lr"] *= self._lr_scale()
        factor = partial(
            learning_rate_factor,
            total_steps=self._total_steps(),
            warmup_steps=settings["warmup_steps"],
            warmup_factor=settings["warmup_start_lr"] / settings["lr"],
            shape=settings["lr_schedule"],
            drops=settings.get("lr_drops") or (),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: factor(step, time_share=self._time_share())
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _lr_scale(self) -> float:
        """From the batch that ``lr`` is meant for to the one of this run."""
        meant = self.hparams.get("lr_batch_size")
        trainer = self.trainer
        if not meant:
            return 1.0
        images = self._data.hparams["batch_size"] * trainer.accumulate_grad_batches
        return float(images * trainer.world_size / meant)

    def _total_steps(self) -> float:
        """Optimizer steps of the whole training; infinite where only time limits it."""
        trainer = self.trainer
        limits = [float("inf")]
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            per_epoch = math.ceil(self._data.batches_per_epoch / trainer.accumulate_grad_batches)
            limits.append(trainer.max_epochs * per_epoch)
        return min(limits)

    def _time_share(self) -> float | None:
        """The part of ``trainer.max_time`` that training has used, resumed runs included."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        timers = [one for one in callbacks if isinstance(one, Timer)]
        shares = [
            timer.time_elapsed() / (timer.time_elapsed() + remaining)
            for timer in timers
            if (remaining := timer.time_remaining()) is not None
        ]
        return min(1.0, *shares) if shares else None

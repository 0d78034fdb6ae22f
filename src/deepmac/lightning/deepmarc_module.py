"""Deep-MARC under Lightning: thin glue between network, evaluation and trainer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deepmac.data.batch import Batch
from deepmac.data.mask_targets import TargetSpec
from deepmac.errors import ConfigError
from deepmac.evaluation.results import ImageResult
from deepmac.lightning.module import NORMALIZATIONS, SegmentationModule
from deepmac.lightning.prediction import predict_batch
from deepmac.lightning.private import trainer_of
from deepmac.lightning.training import Training
from deepmac.lightning.xla import device as xla
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
)

_NAMES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal_box",
    "loss_classifier": "classifier",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


@dataclass(frozen=True)
class MaskRCNNLossWeights:
    """Weights of Mask R-CNN's five losses; the original's are 1.

    Attributes:
        objectness_weight: first stage: object or not, by anchor.
        proposal_box_weight: first stage: where the object is.
        classifier_weight: second stage: which class.
        box_weight: second stage: where it is.
        mask_weight: of the mask loss over mask-supervised boxes.
    """

    objectness_weight: NonNegativeFloat = 1.0
    proposal_box_weight: NonNegativeFloat = 1.0
    classifier_weight: NonNegativeFloat = 1.0
    box_weight: NonNegativeFloat = 1.0
    mask_weight: NonNegativeFloat = 1.0


class DeepMARCSystem(SegmentationModule):
    """What is Deep-MARC's own.

    Args:
        normalization: ``imagenet``; null = as the weights were trained.
        losses: weights of the losses.
        warmup_start_lr: learning rate of the first step.
        warmup_steps: optimizer steps from there to ``lr``.
        lr_drops: optimizer steps at which ``steps`` goes on with a tenth.
        **network: further arguments of the network.
    """

    system = "deepmarc"
    tells_classes_apart = False
    resamples_masks = True

    def __init__(
        self,
        *,
        normalization: Literal["imagenet"] | None = None,
        losses: MaskRCNNLossWeights = MaskRCNNLossWeights(),
        warmup_start_lr: NonNegativeFloat = 1e-4,
        warmup_steps: NonNegativeInt = 500,
        lr_drops: list[NonNegativeInt] | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        self.network_arguments = network
        self.save_hyperparameters()
        # Plain values only: a checkpoint must load without running code.
        weights_of_losses = (
            losses if isinstance(losses, MaskRCNNLossWeights) else MaskRCNNLossWeights(**losses)
        )
        self.hparams["losses"] = asdict(weights_of_losses)
        self.keep_network_arguments(DeepMARC)

    @property
    def targets(self) -> TargetSpec:
        """See :class:`SegmentationModule`."""
        return TargetSpec(mask_size=self.hparams["mask_size"])

    def make_network(self, num_classes: int) -> DeepMARC:
        """See :class:`SegmentationModule`."""
        return DeepMARC(
            num_classes=num_classes,
            normalization=NORMALIZATIONS.get(self.hparams["normalization"] or ""),
            **self.network_arguments,
        )

    def setup(self, stage: str) -> None:
        """See :class:`SegmentationModule`."""
        super().setup(stage)
        if xla.runs_on(trainer_of(self)):
            raise ConfigError(
                "Deep-MARC has shapes that depend on the image, for which XLA would compile every "
                "step: use a CPU or GPU, or Deep-MAC (model=deepmac)"
            )

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Boxes and classes of every object, masks of those that have one."""
        network = self._network
        stage = network(self._images(batch))[-1]
        parts = network.losses(stage, targets_of(batch), batch["true_sizes"])
        losses = {_NAMES[name]: value for name, value in parts.items()}
        weights = self.hparams["losses"]
        total = sum(weights[f"{name}_weight"] * value for name, value in losses.items())
        return {"loss": torch.as_tensor(total), **losses}

    def predict_results(self, batch: Batch) -> list[ImageResult]:
        """See :class:`SegmentationModule`."""
        network = self._network
        assert self.class_map is not None
        return predict_batch(
            network,
            network.last_stage(self._images(batch)),
            batch,
            self.class_map,
            threshold=self.hparams["mask_threshold"],
        )

    @property
    def _network(self) -> DeepMARC:
        assert isinstance(self.network, DeepMARC), "configure_model has not run"
        return self.network


class DeepMARCModule(Training, DeepMARCSystem):
    """Trains and evaluates :class:`deepmac.nn.deepmarc.model.DeepMARC`.

    Args:
        **arguments: of ``Training`` and of ``DeepMARCSystem``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)


def targets_of(batch: Batch) -> list[dict[str, Tensor]]:
    """What the network's ``losses`` take, of a padded batch (see ``deepmac.data.collate``)."""
    targets = []
    open_classes = batch.get("open_classes")
    for row, keep in enumerate(batch["valid"]):
        targets.append(
            {
                "boxes": batch["boxes"][row][keep],
                "mask_boxes": batch["mask_boxes"][row][keep],
                "mask_targets": batch["mask_targets"][row][keep],
                "mask_valid": batch["mask_valid"][row][keep],
                "labels": batch["labels"][row][keep] + 1,  # 0 is the background
                **({} if open_classes is None else {"open_classes": open_classes[row]}),
            }
        )
    return targets

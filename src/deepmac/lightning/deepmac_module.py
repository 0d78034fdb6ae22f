"""Deep-MAC under Lightning: its network, its losses, its answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from deepmac.data.batch import Batch
from deepmac.data.mask_targets import TargetSpec
from deepmac.errors import ConfigError
from deepmac.evaluation.results import ImageResult
from deepmac.lightning.module import NORMALIZATIONS, SegmentationModule
from deepmac.lightning.prediction import predict_batch
from deepmac.lightning.private import allow_compiled_kinds, trainer_of
from deepmac.lightning.training import Training
from deepmac.losses.clicks import simulated_clicks
from deepmac.losses.edges import edge_loss, pooled_targets
from deepmac.losses.options import LossOptions
from deepmac.losses.original import criterion_of
from deepmac.losses.training_masks import training_boxes, training_mask_logits
from deepmac.models.checkpoint import parse_checkpoint
from deepmac.nn.conventions import conventions_of
from deepmac.nn.deepmac import DeepMAC, is_of_detector
from deepmac.nn.edge_head import GRIDS
from deepmac.nn.hourglass import Residual
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Share,
)
from deepmac.nn.stages import Stage


class DeepMACSystem(SegmentationModule):
    """What is Deep-MAC's own.

    Args:
        normalization: ``imagenet`` or ``centernet_bgr``; null = as the weights were trained.
        min_score: detections below it get no mask and are left out of results.
        losses: weights and variants of the losses.
        lr_batch_size: images per optimizer step, over all devices, that ``lr`` and
            ``warmup_start_lr`` are meant for; other numbers scale both in proportion. null = never.
        warmup_start_lr: learning rate of the first step.
        warmup_steps: optimizer steps from there to ``lr``.
        **network: further arguments of the network.
    """

    system = "deepmac"

    def __init__(
        self,
        *,
        normalization: Literal["imagenet", "centernet_bgr"] | None = None,
        min_score: Share = 0.0,
        losses: LossOptions = LossOptions(),  # noqa: B008 - frozen
        lr_batch_size: PositiveInt | None = None,
        warmup_start_lr: NonNegativeFloat = 2.5e-4,
        warmup_steps: NonNegativeInt = 5000,
        **network: Any,
    ) -> None:
        super().__init__()
        self.network_arguments = network
        self.save_hyperparameters()
        # Plain values only: a checkpoint must load without running code.
        options = losses if isinstance(losses, LossOptions) else LossOptions.from_dict(losses)
        self.hparams["losses"] = asdict(options)
        self.keep_network_arguments(DeepMAC)
        self.criterion = criterion_of(options, conventions_of(self.hparams["compat"]))

    @property
    def targets(self) -> TargetSpec:
        """See :class:`SegmentationModule`."""
        settings = self.hparams
        return TargetSpec(
            mask_size=GRIDS[-1] if settings["edge_channels"] else settings["mask_size"],
            stride=settings["stride"],
            full_resolution=settings["predict_full_resolution_masks"],
            box_margin=settings["box_margin"],
            conventions=conventions_of(settings["compat"]),
        )

    def make_network(self, num_classes: int) -> DeepMAC:
        """See :class:`SegmentationModule`."""
        return DeepMAC(
            num_classes=num_classes,
            normalization=NORMALIZATIONS.get(self.hparams["normalization"] or ""),
            **self.network_arguments,
        )

    def compile_network(self, network: SegmentationNetwork) -> None:
        """Backbone and prediction heads; the mask head's rows change with every batch.

        An hourglass is compiled block by block: hourglass-104's 82 are of 14 kinds, and each kind
        is compiled once.
        """
        assert isinstance(network, DeepMAC)
        blocks = [part for part in network.backbone.modules() if isinstance(part, Residual)]
        if blocks:
            allow_compiled_kinds(64)
            for part in blocks:
                part.compile(dynamic=False)
        else:
            network.backbone.compile()
        for heads in network.heads:
            heads.compile()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :class:`SegmentationModule`; a detector that is not wanted is left out.

        Raises:
            ConfigError: a training with a detector cannot go on without it.
        """
        found = parse_checkpoint(checkpoint, source="this checkpoint")
        if found.settings.get("detector", True) and not self.hparams["detector"]:
            if trainer_of(self) is not None and self.trainer.state.fn == "fit":
                raise ConfigError(
                    "this training has a detector, whose optimizer state does not go with "
                    "model.detector=false: begin anew from its weights with model.init_from="
                    "CHECKPOINT instead of ckpt_path"
                )
            checkpoint["state_dict"] = {
                name: tensor
                for name, tensor in checkpoint["state_dict"].items()
                if not is_of_detector(name.removeprefix("network."))
            }
        super().on_load_checkpoint(checkpoint)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Masks are learned on ground-truth boxes alone."""
        network, options = self._network, self.criterion.options
        stages = network.stages(self._images(batch))
        used = stages[-1:] if options.use_only_last_stage else stages
        # Weak losses ask for the masks of every box.
        rows = batch["valid"] if options.weak_weights() else batch["mask_valid"]
        boxes = training_boxes(network, batch)
        if network.box_margin:
            batch = {**batch, "mask_frames": network.mask_frames(boxes)}
        fine = batch
        if network.edge_head is not None:
            pooled = pooled_targets(batch["mask_targets"], network.mask_size)
            batch = {**batch, "mask_targets": pooled}
        logits = [training_mask_logits(network, stage, boxes, rows) for stage in used]
        teachers = None
        if options.self_supervision.weight > 0:
            teachers = self.criterion.second_view.teachers(
                network, batch, only_last_stage=options.use_only_last_stage
            )
        corrected = self._corrected(stages[-1], boxes, logits[-1], batch)
        edges = self._edges(fine, logits[-1])
        with torch.autocast(self.device.type, enabled=False):
            losses: dict[str, Tensor] = self.criterion(
                stages,
                logits,
                batch,
                stride=network.stride,
                full_resolution=network.full_resolution,
                teachers=teachers,
                step=self._step_number(),
                corrected=corrected,
                edges=edges,
            )
        return losses

    def _corrected(
        self, stage: Stage, boxes: Tensor, logits: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor] | None:
        """Logits after simulated clicks, and which masks had any; the first head learns nothing.

        The clicks go by the run's seed and the step alone, and so are those of a resumed run.
        """
        network, options = self._network, self.criterion.options
        if network.click_head is None or options.click_weight == 0:
            return None
        inputs, first = network.head_inputs(stage, boxes), logits.detach()
        clicks = simulated_clicks(
            network,
            inputs,
            first,
            batch,
            number=1 + self.global_step % options.max_clicks,
            threshold=self.hparams["mask_threshold"],
            seed=(torch.initial_seed() + 1_000_003 * self.global_step) % 2**63,
        )
        rows = clicks.rows() & batch["mask_valid"]
        return network.click_head.corrected(inputs, first, clicks, rows), rows

    def _edges(self, batch: Batch, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """The loss of masks made finer; all else learns nothing by it."""
        network, options = self._network, self.criterion.options
        if network.edge_head is None or options.edge_weight == 0:
            return None
        return edge_loss(network, batch, logits, step=self.global_step)

    def _step_number(self) -> int | Tensor:
        """For warm-ups; on XLA sent to the device, as numbers 0 and 1 make graphs of their own."""
        if self.device.type != "xla" or not self.criterion.options.weak_weights():
            return self.global_step
        return torch.tensor([float(self.global_step)]).to(self.device)

    def predict_results(self, batch: Batch) -> list[ImageResult]:
        """From the last backbone output."""
        stage = self._network.last_stage(self._images(batch))
        assert self.class_map is not None
        return predict_batch(
            self._network,
            stage,
            batch,
            self.class_map,
            min_score=self.hparams["min_score"],
            threshold=self.hparams["mask_threshold"],
        )

    @property
    def _network(self) -> DeepMAC:
        assert isinstance(self.network, DeepMAC), "configure_model has not run"
        return self.network


class DeepMACModule(Training, DeepMACSystem):
    """Trains and evaluates :class:`deepmac.nn.deepmac.DeepMAC`.

    Args:
        **arguments: of ``Training`` and of ``DeepMACSystem``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)

"""Deep-MAC under Lightning: its network, its losses, its answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepmac.evaluation.results import ImageResult
from deepmac.lightning.module import NORMALIZATIONS, Batch, SegmentationModule
from deepmac.lightning.optim.schedule import ScheduleShape
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from deepmac.lightning.prediction import predict_batch
from deepmac.losses.criterion import DeepMACCriterion, LossOptions
from deepmac.losses.original import training_boxes, training_mask_logits
from deepmac.losses.second_view import second_view
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.norm import Compat, set_cross_replica
from deepmac.nn.roi_crop import CropImpl


class DeepMACModule(SegmentationModule):
    """Trains and evaluates :class:`deepmac.nn.deepmac.DeepMAC`.

    Args:
        num_classes: class slots; null takes the number of categories in the training json.
        backbone: ``hourglass_104|52|32|20|10`` or any timm model name.
        weights: backbone weights to start from: null, ``timm``, ``package`` or a local file.
        normalization: ``imagenet`` or ``centernet_bgr``; null = as the weights were trained.
        pyramid_width: channels of the feature pyramid on timm backbones.
        stride: input pixels per cell of the maps, 4 or 8.
        head_channels: width of the prediction heads.
        mask_head: one of ``deepmac.nn.mask_heads.MASK_HEADS``.
        num_init_channels: width of the mask head.
        mask_size: side of the box crop that the mask head sees and answers.
        pixel_embedding_dim: channels of the pixel embedding.
        dim: channels of the instance embedding.
        use_xy: give the mask head coordinate channels.
        use_instance_embedding: give the mask head the embedding at the box centre.
        predict_full_resolution_masks: the mask head sees the whole map instead of a crop.
        postprocess_crop_size: side of the masks returned in that mode.
        max_detections: boxes returned per image.
        min_score: detections below it get no mask and are left out of results.
        mask_threshold: a pixel belongs to a mask above this probability.
        crop_impl: ``auto``, ``torchvision`` or ``separable`` RoIAlign.
        checkpoint_activations: recompute backbone activations in the backward pass.
        compat: ``tf_release`` or ``tf_latest``: everything as the original: network, crop, norms,
            data, losses, optimizer.
        init_from: checkpoint or weight file to start from; what did not fit is reported.
        losses: weights and variants of the losses.
        lr: peak learning rate.
        lr_batch_size: images per optimizer step, over all devices, that ``lr`` and
            ``warmup_start_lr`` are meant for; other numbers scale both in proportion. null = never.
        warmup_start_lr: learning rate of the first step.
        warmup_steps: optimizer steps from there to ``lr``.
        lr_schedule: ``cosine`` to zero at the last step, or ``constant``.
        weight_decay: above 0, decoupled weight decay (AdamW).
        adam_epsilon: the original's 1e-7.
        backbone_lr_factor: learning rate of the backbone relative to ``lr``.
        channels_last: memory format of images and weights; faster on most devices.
        compile: run backbone and heads through ``torch.compile``.
    """

    system = "deepmac"

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        backbone: str = "hourglass_104",
        weights: str | None = None,
        normalization: Literal["imagenet", "centernet_bgr"] | None = None,
        pyramid_width: int = 64,
        stride: Literal[4, 8] = 4,
        head_channels: int = 256,
        mask_head: str = "hourglass52",
        num_init_channels: int = 64,
        mask_size: int = 32,
        pixel_embedding_dim: int = 16,
        dim: int = 32,
        use_xy: bool = True,
        use_instance_embedding: bool = True,
        predict_full_resolution_masks: bool = False,
        postprocess_crop_size: int = 256,
        max_detections: int = 100,
        min_score: float = 0.0,
        mask_threshold: float = 0.5,
        crop_impl: CropImpl = "auto",
        checkpoint_activations: bool = False,
        compat: Compat = None,
        init_from: str | None = None,
        losses: LossOptions = LossOptions(),  # noqa: B008 - frozen
        lr: float = 1e-3,
        lr_batch_size: int | None = None,
        warmup_start_lr: float = 2.5e-4,
        warmup_steps: int = 5000,
        lr_schedule: ScheduleShape = "cosine",
        weight_decay: float = 0.0,
        adam_epsilon: float = 1e-7,
        backbone_lr_factor: float = 1.0,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # Plain values only: a checkpoint must load without running code.
        options = losses if isinstance(losses, LossOptions) else LossOptions(**losses)
        self.hparams["losses"] = asdict(options)
        self.criterion = DeepMACCriterion(options.following(compat), compat=compat is not None)

    def make_network(self, num_classes: int, *, fresh: bool) -> DeepMAC:
        """See :class:`SegmentationModule`."""
        settings = self.hparams
        names = [
            "backbone",
            "weights",
            "pyramid_width",
            "stride",
            "head_channels",
            "mask_head",
            "num_init_channels",
            "mask_size",
            "pixel_embedding_dim",
            "dim",
            "use_xy",
            "use_instance_embedding",
            "predict_full_resolution_masks",
            "postprocess_crop_size",
            "max_detections",
            "crop_impl",
            "checkpoint_activations",
            "compat",
        ]
        arguments = {name: settings[name] for name in names}
        if not fresh:
            arguments["weights"] = None  # a checkpoint replaces them anyway
        return DeepMAC(
            num_classes=num_classes,
            normalization=NORMALIZATIONS.get(settings["normalization"] or ""),
            **arguments,
        )

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """See :class:`SegmentationModule`; the original's form of Adam with ``compat``."""
        settings = self.hparams
        if settings["compat"] is None:
            return super().make_optimizer(groups)
        return TensorFlowAdam(
            groups,
            lr=settings["lr"],
            eps=settings["adam_epsilon"],
            weight_decay=settings["weight_decay"],
            decoupled_weight_decay=True,
        )

    def compile_network(self, network: nn.Module) -> None:
        """Backbone and prediction heads; the mask head's rows change with every batch."""
        assert isinstance(network, DeepMAC)
        network.backbone.compile()
        for heads in network.heads:
            heads.compile()

    def on_fit_start(self) -> None:
        """Normalise losses and batch statistics over all replicas."""
        self.criterion.replicas = self.trainer.world_size
        if self.trainer.world_size > 1:
            self.criterion.sum_over_replicas = self.sum_over_replicas
            self.synchronize_norms()
            if self.hparams["compat"] and self.hparams["mask_head"].startswith("resnet"):
                set_cross_replica(self._network.mask_head, False)  # plain norms in the original

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Masks are learned on ground-truth boxes alone."""
        network, options = self._network, self.criterion.options
        stages = network(self._images(batch))
        used = stages[-1:] if options.use_only_last_stage else stages
        # Weak losses ask for the masks of every box.
        rows = batch["valid"] if options.weak_weights() else batch["mask_valid"]
        boxes = training_boxes(network, batch)
        logits = [training_mask_logits(network, stage, boxes, rows) for stage in used]
        teachers = None
        if options.self_supervision_weight > 0:
            teachers = second_view(
                network, batch, options, only_last_stage=options.use_only_last_stage
            )
        with torch.autocast(self.device.type, enabled=False):
            losses: dict[str, Tensor] = self.criterion(
                stages,
                logits,
                batch,
                stride=network.stride,
                full_resolution=network.full_resolution,
                teachers=teachers,
                step=self._step_number(),
            )
        return losses

    def _step_number(self) -> int | Tensor:
        """For warm-ups; on XLA sent to the device, as numbers 0 and 1 make graphs of their own."""
        if self.device.type != "xla" or not self.criterion.options.weak_weights():
            return self.global_step
        return torch.tensor([float(self.global_step)]).to(self.device)

    def predict_results(self, batch: Batch) -> list[ImageResult]:
        """From the last backbone output."""
        stage = self._network(self._images(batch))[-1]
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

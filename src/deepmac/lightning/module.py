"""Deep-MAC under Lightning: thin glue between network, criterion, evaluation and trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError, UserError
from deepmac.evaluation.results import ImageResult
from deepmac.lightning.console import say
from deepmac.lightning.datamodule import CocoDataModule
from deepmac.lightning.initial_weights import load_initial_weights
from deepmac.lightning.prediction import predict_batch
from deepmac.lightning.schedule import ScheduleShape, learning_rate_factor
from deepmac.losses import DeepMACCriterion, LossOptions
from deepmac.nn.backbones import CENTERNET_BGR, IMAGENET, Normalization
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.norm import Compat, set_cross_replica
from deepmac.nn.roi_crop import CropImpl
from deepmac.second_view import second_view

Batch = Mapping[str, Tensor]
NORMALIZATIONS = {"imagenet": IMAGENET, "centernet_bgr": CENTERNET_BGR}


class DeepMACModule(pl.LightningModule):
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
        crop_impl: ``auto``, ``torchvision`` or ``separable`` RoIAlign.
        checkpoint_activations: recompute backbone activations in the backward pass.
        compat: ``tf_release`` or ``tf_latest``: network, crop, norms, losses of the original.
        init_from: checkpoint or weight file to start from; what did not fit is reported.
        losses: weights and variants of the losses.
        lr: peak learning rate.
        warmup_start_lr: learning rate of the first step.
        warmup_steps: optimizer steps from there to ``lr``.
        lr_schedule: ``cosine`` to zero at the last step, or ``constant``.
        weight_decay: above 0, decoupled weight decay (AdamW).
        adam_epsilon: the original's 1e-7.
        backbone_lr_factor: learning rate of the backbone relative to ``lr``.
        channels_last: memory format of images and weights; faster on most devices.
        compile: run backbone and heads through ``torch.compile``.
    """

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
        crop_impl: CropImpl = "auto",
        checkpoint_activations: bool = False,
        compat: Compat = None,
        init_from: str | None = None,
        losses: LossOptions = LossOptions(),  # noqa: B008 - frozen
        lr: float = 1e-3,
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
        self.network: DeepMAC | None = None
        self.class_map: ClassMap | None = None
        self.criterion = DeepMACCriterion(options.following(compat), compat=compat is not None)
        self._fresh_weights = True

    # Building the network: only once the classes are known.

    def configure_model(self) -> None:
        """Build the network for the trainer's data set; a checkpoint brings its own classes."""
        if self.network is None and self._trainer is not None:
            self.build(self._data.class_map)
            self._check_image_size(self._data.hparams["image_size"])

    def _check_image_size(self, size: int) -> None:
        divisor = self._network.backbone.size_divisor
        if size % divisor:
            raise ConfigError(
                f"data.image_size={size} does not fit {self.hparams['backbone']}: it must be one "
                f"of the multiples of {divisor}"
            )

    def build(self, class_map: ClassMap) -> None:
        """Create the network with one class slot per entry of ``class_map``."""
        settings = self.hparams
        if settings["num_classes"] not in (None, len(class_map)):
            raise ConfigError(
                f"model.num_classes={settings['num_classes']}, but the annotations define "
                f"{len(class_map)} categories: set model.num_classes=null to follow the data"
            )
        self.class_map = class_map
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
        if not self._fresh_weights:
            arguments["weights"] = None  # a checkpoint replaces them anyway
        try:
            network = DeepMAC(
                num_classes=len(class_map),
                normalization=NORMALIZATIONS.get(settings["normalization"] or ""),
                **arguments,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if settings["init_from"] and self._fresh_weights:
            load_initial_weights(
                network, settings["init_from"], normalization=settings["normalization"]
            )
        if settings["channels_last"]:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings["compile"]:
            network.backbone.compile()
            for heads in network.heads:
                heads.compile()
        self.network = network

    # Training.

    def on_fit_start(self) -> None:
        """Normalise losses and batch statistics over all replicas."""
        self.criterion.replicas = self.trainer.world_size
        if self.trainer.world_size > 1:
            self.criterion.sum_over_replicas = partial(
                self.trainer.strategy.reduce, reduce_op="sum"
            )
            set_cross_replica(self._network, True)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Losses of one batch; masks are learned on ground-truth boxes alone."""
        losses = self._losses(batch)
        finite = torch.isfinite(losses["loss"])
        if not finite:
            raise UserError(_not_finite(losses, batch, self.global_step))
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        total = shown.pop("train/loss")
        size = len(batch["images"])
        self.log("train/loss", total, prog_bar=True, batch_size=size)
        self.log_dict(shown, prog_bar=True, batch_size=size)
        return losses["loss"]

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        network, options = self._network, self.criterion.options
        stages = network(self._images(batch))
        used = stages[-1:] if options.use_only_last_stage else stages
        # Weak losses ask for the masks of every box.
        rows = batch["valid"] if options.weak_weights() else batch["mask_valid"]
        logits = [network.mask_logits(stage, batch["mask_boxes"], rows) for stage in used]
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
                step=self.global_step,
            )
        return losses

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and cosine decay (AdamW where weight decay is asked for)."""
        settings = self.hparams
        network = self._network
        backbone = {id(p) for p in network.backbone.parameters()}
        groups = [
            {
                "params": [p for p in self.parameters() if id(p) in backbone],
                "lr": settings["lr"] * settings["backbone_lr_factor"],
            },
            {"params": [p for p in self.parameters() if id(p) not in backbone]},
        ]
        kind = torch.optim.AdamW if settings["weight_decay"] else torch.optim.Adam
        optimizer = kind(
            groups,
            lr=settings["lr"],
            eps=settings["adam_epsilon"],
            weight_decay=settings["weight_decay"],
        )
        factor = partial(
            learning_rate_factor,
            total_steps=self._total_steps(),
            warmup_steps=settings["warmup_steps"],
            warmup_factor=settings["warmup_start_lr"] / settings["lr"],
            shape=settings["lr_schedule"],
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

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

    # Evaluation and prediction; callbacks turn the returned predictions into metrics and files.

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, list[ImageResult]]:
        """``results`` for every image of the batch, masks of the given boxes included."""
        return {"results": self._predict(batch)}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[ImageResult]]:
        """As validation."""
        return {"results": self._predict(batch)}

    def predict_step(self, batch: Batch, batch_idx: int) -> list[ImageResult]:
        """As validation; the batch may have no boxes."""
        return self._predict(batch)

    def _predict(self, batch: Batch) -> list[ImageResult]:
        stage = self._network(self._images(batch))[-1]
        assert self.class_map is not None
        return predict_batch(
            self._network, stage, batch, self.class_map, min_score=self.hparams["min_score"]
        )

    # Checkpoints carry the classes beside the weights.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store which category every class slot means, in plain values."""
        if self.class_map is not None:
            checkpoint["deepmac_class_map"] = self.class_map.to_dict()
            checkpoint["deepmac_normalization"] = asdict(self._network.normalize.normalization)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the checkpoint's classes, or refuse those of another data set."""
        if "deepmac_class_map" not in checkpoint:
            raise ConfigError("this checkpoint was not written by DeepMAC: it names no classes")
        stored = ClassMap.from_dict(checkpoint["deepmac_class_map"])
        if self.network is None:
            self._fresh_weights = False
            self.build(stored)
        assert self.class_map is not None
        if stored.category_ids != self.class_map.category_ids:
            raise ConfigError(
                f"the checkpoint knows {len(stored)} classes (ids {_short(stored.category_ids)}), "
                f"the data set {len(self.class_map)} (ids {_short(self.class_map.category_ids)}): "
                "use the data set it was trained on, or start anew with model.init_from"
            )
        self.class_map = stored
        self._network.normalize.set(Normalization.from_dict(checkpoint["deepmac_normalization"]))
        self._check_shapes(checkpoint)

    def _check_shapes(self, checkpoint: dict[str, Any]) -> None:
        """Explicit settings win over a checkpoint's; say what differs, stop where it cannot fit."""
        told = checkpoint.get("hyper_parameters", {})
        ours = dict(self.hparams)
        differing = [
            f"{name} {told[name]!r} -> {value!r}"
            for name, value in ours.items()
            if name in told and told[name] != value and not name.startswith("_")
        ]
        state = self.state_dict()
        stored = checkpoint["state_dict"]
        fits = state.keys() == stored.keys() and all(
            state[key].shape == value.shape for key, value in stored.items()
        )
        if not fits:
            raise ConfigError(
                "the checkpoint's weights do not fit this network; settings that differ from "
                f"its own: {', '.join(differing) or 'none'}"
            )
        if differing:
            say(f"settings that differ from the checkpoint's: {', '.join(differing)}")

    @property
    def _data(self) -> CocoDataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    @property
    def _network(self) -> DeepMAC:
        assert self.network is not None, "configure_model has not run"
        return self.network

    def _images(self, batch: Batch) -> Tensor:
        images = batch["images"]
        if self.hparams["channels_last"]:
            images = images.contiguous(memory_format=torch.channels_last)
        return images


def _not_finite(losses: Mapping[str, Tensor], batch: Batch, step: int) -> str:
    parts = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
    ids = ", ".join(str(i) for i in batch["image_ids"].tolist())
    return (
        f"the loss is not finite at step {step} ({parts}) on images {ids}: look at these images "
        "with `deepmac check-data`, or lower model.lr"
    )


def _short(ids: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, ids[:6]))
    return f"{shown}, ..." if len(ids) > 6 else shown

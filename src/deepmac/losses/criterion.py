"""The training criterion: named losses over every stage, normalised over all replicas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.losses.center_targets import CenterTargets, center_targets
from deepmac.losses.clicks import click_loss
from deepmac.losses.options import LossOptions
from deepmac.losses.second_view import SecondView, Teacher
from deepmac.losses.weak import WeakLosses, cross_entropy, dice
from deepmac.nn.centernet import cells_inside
from deepmac.nn.replicas import ALONE, Replicas
from deepmac.nn.stages import Stage

_AT_RADIUS = math.exp(-4.5)
"""Least value of a Gaussian within its radius, which is at most three of its sigmas."""


class DeepMACCriterion(nn.Module):
    """Weighted sum of heatmap, size, offset and mask losses (paper section 4), and weak ones.

    Args:
        options: weights and variants.

    Attributes:
        weak: the losses that need no masks.
        second_view: where self-supervision's teachers come from.
        replicas: who shares a batch; see :func:`deepmac.nn.replicas.share`.
    """

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.options = options
        self.weak = WeakLosses(options)
        self.second_view = SecondView(options)
        self.replicas: Replicas = ALONE

    def forward(
        self,
        stages: Sequence[Stage],
        mask_logits: Sequence[Tensor],
        batch: Batch,
        *,
        stride: int,
        full_resolution: bool = False,
        teachers: Sequence[Teacher] | None = None,
        step: int | Tensor | None = None,
        corrected: tuple[Tensor, Tensor] | None = None,
        edges: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one batch, in float32.

        Args:
            stages: the network's outputs, one per backbone output.
            mask_logits: for each of them (B, N, S, S) logits of ``batch["mask_boxes"]``; rows
                that are not ``mask_valid`` are ignored (with weak losses, not ``valid``).
            batch: the padded batch (see ``deepmac.data.collate``).
            stride: input pixels per cell.
            full_resolution: masks cover the whole map instead of ``mask_boxes``.
            teachers: for self-supervision, one for each of ``mask_logits``.
            step: optimizer step for warm-ups; None = no warm-up.
            corrected: (B, N, S, S) logits after clicks, and (B, N) bool which masks had any.
            edges: of :func:`deepmac.losses.edges.edge_loss`.

        Returns:
            ``loss`` (the weighted sum to minimise), the unweighted parts by name (without a
            detector ``mask`` alone, with a click head ``click`` too, with an edge head ``edge``),
            and the weak losses on.
        """
        valid = batch["valid"].float()
        objects = self._count(valid)
        weights = {
            "heatmap": self.options.heatmap_weight,
            "size": self.options.size_weight,
            "offset": self.options.offset_weight,
            "mask": self.options.mask_weight,
            "click": self.options.click_weight,
            "edge": self.options.edge_weight,
            **self.options.weak_weights(),
        }
        parts: dict[str, list[Tensor]] = {name: [] for name in weights}
        if stages[0].heatmap is not None:
            self._detector(parts, stages, batch, stride, objects)
        used = mask_logits[-1:] if self.options.use_only_last_stage else mask_logits
        for index, logits in enumerate(used):
            parts["mask"].append(self._mask(logits.float(), batch, full_resolution))
            weak = self.weak(
                logits.float(),
                batch,
                full_resolution=full_resolution,
                stride=stride,
                step=step,
                teacher=None if teachers is None else teachers[index],
            )
            for name, value in weak.items():
                parts[name].append((value * valid).sum() / objects)
        if corrected is not None:
            each, counted = click_loss(corrected[0].float(), batch, corrected[1])
            parts["click"].append(each.sum() / self._count(counted))
        if edges is not None:
            each, counted = edges
            parts["edge"].append(each.sum() / self._count(counted))
        losses = {name: torch.stack(values).mean() for name, values in parts.items() if values}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return {"loss": total, **losses}

    def _detector(
        self,
        parts: dict[str, list[Tensor]],
        stages: Sequence[Stage],
        batch: Batch,
        stride: int,
        objects: Tensor,
    ) -> None:
        """Append heatmap, size and offset losses of every stage."""
        valid = batch["valid"].float()
        counted = supervised_cells(batch["true_sizes"], batch["ignore"], stride)
        targets: CenterTargets | None = None
        for stage in stages:
            assert stage.heatmap is not None
            if targets is None:
                targets = center_targets(
                    batch["boxes"],
                    batch["labels"],
                    batch["valid"],
                    num_classes=stage.heatmap.shape[1],
                    map_size=(stage.heatmap.shape[-2], stage.heatmap.shape[-1]),
                    stride=stride,
                    min_iou=self.options.min_iou,
                    radius_rule=self.options.radius_rule,
                )
                if "open_classes" in batch:
                    counted = counted * closed_cells(targets.heatmap, batch["open_classes"])
            focal = self._focal(stage.heatmap.float(), targets.heatmap, counted)
            size, offset = _size_and_offset(stage, targets, valid)
            parts["heatmap"].append(focal / objects)
            parts["size"].append(size / objects)
            parts["offset"].append(offset / objects)

    def _focal(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Sum over cells of CornerNet's penalty-reduced focal loss."""
        probability = logits.sigmoid()
        if self.options.probability_clip is None:
            log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        else:
            probability = probability.clamp(
                self.options.probability_clip, 1 - self.options.probability_clip
            )
            log_p, log_not_p = probability.log(), (1 - probability).log()
        positive = (1 - probability).pow(self.options.focal_alpha) * log_p
        negative = (
            (1 - target).pow(self.options.focal_beta)
            * probability.pow(self.options.focal_alpha)
            * log_not_p
        )
        # Only the centre cell itself is exactly 1.
        loss = torch.where(target == 1.0, positive, negative)
        return -(loss * counted).sum()

    def _mask(self, logits: Tensor, batch: Batch, full_resolution: bool) -> Tensor:
        """The mean over mask-supervised instances, each times the trust in its mask."""
        weight = batch["mask_valid"].float()
        trust = batch.get("mask_weights", weight) * weight
        per_instance = self._per_instance(logits, batch, full_resolution) * trust
        if self.options.mask_normalization == "image":
            return (per_instance.sum(1) / weight.sum(1).clamp(min=1.0)).mean()
        return per_instance.sum() / self._count(weight)

    def _per_instance(self, logits: Tensor, batch: Batch, full_resolution: bool) -> Tensor:
        """(B, N) dice, or cross-entropy averaged over pixels."""
        targets = batch["mask_targets"].float()
        counted = torch.ones_like(logits)
        if self.options.ignore_class_overlap:
            grid = (logits.shape[-2], logits.shape[-1])
            counted = self.weak.alone(batch, grid, full_resolution)
        return self._masked_loss(logits, targets, counted)

    def _masked_loss(self, logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
        if self.options.mask_loss == "cross_entropy":
            return cross_entropy(logits, targets, counted)
        return dice(logits, targets, counted)

    def _count(self, weight: Tensor) -> Tensor:
        """Instances per replica, at least one in all: averaged gradients weigh each alike."""
        return self.replicas.sum(weight.sum()).clamp(min=1.0) / self.replicas.count


def supervised_cells(true_sizes: Tensor, ignore: Tensor, stride: int) -> Tensor:
    """Cells that carry heatmap loss: inside the image, outside crowd regions.

    Args:
        true_sizes: (B, 2) int64 height and width of the content, in input pixels.
        ignore: (B, h, w) bool, cells in crowd regions.
        stride: input pixels per cell.

    Returns:
        (B, 1, h, w) float 0 or 1.
    """
    return (cells_inside(true_sizes, ignore, stride) & ~ignore[:, None]).float()


def closed_cells(heatmap: Tensor, open_classes: Tensor) -> Tensor:
    """Cells that carry heatmap loss although unmarked objects of a class may be about.

    Around an annotated centre, within the radius of its Gaussian, the cells are known; elsewhere an
    unmarked object may be, and nothing is asked of them.

    Args:
        heatmap: (B, C, h, w) targets.
        open_classes: (B, C) bool, see :func:`deepmac.data.exhaustive.open_classes`.

    Returns:
        (B, C, h, w) float 0 or 1.
    """
    return (~open_classes[:, :, None, None] | (heatmap >= _AT_RADIUS)).float()


def _size_and_offset(stage: Stage, targets: CenterTargets, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of L1 errors read at the centre cells, over both channels of valid boxes."""
    width = targets.heatmap.shape[-1]
    y = targets.cell // width
    size, offset = (stage.at(name, y, targets.cell - y * width) for name in ("size", "offset"))
    assert size is not None and offset is not None
    weight = valid[..., None]
    size = ((size.float() - targets.size).abs() * weight).sum()
    offset = ((offset.float() - targets.offset).abs() * weight).sum()
    return size, offset

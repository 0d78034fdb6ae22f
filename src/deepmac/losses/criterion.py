"""The training criterion: named losses over every stage, normalised over all replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmac.losses.center_targets import CenterTargets, RadiusRule, center_targets
from deepmac.losses.weak import cross_entropy, dice
from deepmac.losses.weak_criterion import (
    Teacher,
    WeakLossOptions,
    cells_without_overlap,
    weak_losses,
)
from deepmac.nn.deepmac import StageOutput
from deepmac.nn.full_resolution import original_resize
from deepmac.nn.norm import Compat

MaskNormalization = Literal["batch", "image"]
MaskLoss = Literal["cross_entropy", "dice"]


@dataclass(frozen=True)
class LossOptions(WeakLossOptions):
    """Weights and variants of the losses (defaults: the original's configs, today's arithmetic).

    Attributes:
        heatmap_weight: of the penalty-reduced focal loss.
        size_weight: of the L1 loss on box width and height, in cells.
        offset_weight: of the L1 loss on the centre's place in its cell.
        mask_weight: of the mask loss over mask-supervised instances.
        mask_loss: ``cross_entropy`` averaged over pixels, or ``dice``.
        focal_alpha: exponent on the error of a prediction.
        focal_beta: exponent that spares cells near a centre.
        min_iou: see :func:`deepmac.losses.center_targets.center_targets`.
        radius_rule: see :func:`deepmac.losses.center_targets.gaussian_radius`.
        mask_normalization: ``batch`` divides by the instances with masks on all replicas;
            ``image`` averages within each image first (the 2021 release).
        probability_clip: clip heatmap probabilities this far from 0 and 1 as the original does;
            null computes the logarithms from the logits, which needs no clip.
        use_only_last_stage: mask loss on the last backbone output alone.
    """

    heatmap_weight: float = 1.0
    size_weight: float = 0.1
    offset_weight: float = 1.0
    mask_weight: float = 5.0
    mask_loss: MaskLoss = "cross_entropy"
    focal_alpha: float = 2.0
    focal_beta: float = 4.0
    min_iou: float = 0.7
    radius_rule: RadiusRule = "exact"
    mask_normalization: MaskNormalization = "batch"
    probability_clip: float | None = None
    use_only_last_stage: bool = False

    def following(self, compat: Compat) -> LossOptions:
        """These options with the original's arithmetic; the first release averaged by image."""
        if compat is None:
            return self
        return replace(
            self,
            radius_rule="original",
            probability_clip=1e-4,
            mask_normalization="image" if compat == "tf_release" else "batch",
        )


class DeepMACCriterion(nn.Module):
    """Weighted sum of heatmap, size, offset and mask losses (paper section 4), and weak ones.

    Args:
        options: weights and variants.
        compat: weak losses with the slips of the original, full-resolution masks compared at the
            input's size, and every replica normalised by itself.
    """

    def __init__(self, options: LossOptions = LossOptions(), *, compat: bool = False) -> None:
        super().__init__()
        self.options = options
        self.compat = compat
        # Set by the trainer where several replicas share a batch and average their gradients.
        self.replicas = 1
        self.sum_over_replicas: Callable[[Tensor], Tensor] = _same

    def forward(
        self,
        stages: Sequence[StageOutput],
        mask_logits: Sequence[Tensor],
        batch: Mapping[str, Tensor],
        *,
        stride: int,
        full_resolution: bool = False,
        teachers: Sequence[Teacher] | None = None,
        step: int | Tensor | None = None,
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

        Returns:
            ``loss`` (the weighted sum to minimise), the four unweighted parts by name, and the
            weak losses that are on.
        """
        num_classes, map_size = stages[0].heatmap.shape[1], stages[0].heatmap.shape[-2:]
        targets = center_targets(
            batch["boxes"],
            batch["labels"],
            batch["valid"],
            num_classes=num_classes,
            map_size=(map_size[0], map_size[1]),
            stride=stride,
            min_iou=self.options.min_iou,
            radius_rule=self.options.radius_rule,
        )
        counted = supervised_cells(batch["true_sizes"], batch["ignore"], stride)
        valid = batch["valid"].float()
        objects = self._count(valid)
        weights = {
            "heatmap": self.options.heatmap_weight,
            "size": self.options.size_weight,
            "offset": self.options.offset_weight,
            "mask": self.options.mask_weight,
            **self.options.weak_weights(),
        }
        parts: dict[str, list[Tensor]] = {name: [] for name in weights}
        for stage in stages:
            focal = self._focal(stage.heatmap.float(), targets.heatmap, counted)
            size, offset = _size_and_offset(stage, targets, valid)
            parts["heatmap"].append(focal / objects)
            parts["size"].append(size / objects)
            parts["offset"].append(offset / objects)
        used = mask_logits[-1:] if self.options.use_only_last_stage else mask_logits
        for index, logits in enumerate(used):
            parts["mask"].append(self._mask(logits.float(), batch, full_resolution))
            weak = weak_losses(
                self.options,
                logits.float(),
                batch,
                full_resolution=full_resolution,
                stride=stride,
                step=step,
                teacher=None if teachers is None else teachers[index],
                compat=self.compat,
            )
            for name, value in weak.items():
                parts[name].append((value * valid).sum() / objects)
        losses = {name: torch.stack(values).mean() for name, values in parts.items()}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return {"loss": total, **losses}

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

    def _mask(self, logits: Tensor, batch: Mapping[str, Tensor], full_resolution: bool) -> Tensor:
        """The mean over mask-supervised instances."""
        weight = batch["mask_valid"].float()
        if self.compat and full_resolution:
            # The original compares every pixel of the input.
            height, width = batch["mask_targets"].shape[-2:]
            logits = original_resize(logits, (height, width))
        per_instance = self._per_instance(logits, batch, full_resolution) * weight
        if self.options.mask_normalization == "image":
            return (per_instance.sum(1) / weight.sum(1).clamp(min=1.0)).mean()
        return per_instance.sum() / self._count(weight)

    def _per_instance(
        self, logits: Tensor, batch: Mapping[str, Tensor], full_resolution: bool
    ) -> Tensor:
        """(B, N) dice, or cross-entropy averaged over pixels."""
        targets = batch["mask_targets"].float()
        counted = torch.ones_like(logits)
        if self.options.ignore_class_overlap:
            grid = (logits.shape[-2], logits.shape[-1])
            counted = cells_without_overlap(
                batch, grid, full_resolution=full_resolution, compat=self.compat
            )
        if self.options.mask_loss == "cross_entropy":
            return cross_entropy(logits, targets, counted, compat=self.compat)
        if self.compat:
            return dice(logits * counted, targets)
        return dice(logits, targets, counted)

    def _count(self, weight: Tensor) -> Tensor:
        """Instances per replica, at least one in all: averaged gradients weigh each alike.

        The original divides by each replica's own count instead.
        """
        if self.compat:
            return weight.sum().clamp(min=1.0)
        return self.sum_over_replicas(weight.sum()).clamp(min=1.0) / self.replicas


def supervised_cells(true_sizes: Tensor, ignore: Tensor, stride: int) -> Tensor:
    """Cells that carry heatmap loss: inside the image, outside crowd regions.

    Args:
        true_sizes: (B, 2) int64 height and width of the content, in input pixels.
        ignore: (B, h, w) bool, cells in crowd regions.

    Returns:
        (B, 1, h, w) float 0 or 1.
    """
    height, width = ignore.shape[-2:]
    rows = torch.arange(height, device=ignore.device)
    columns = torch.arange(width, device=ignore.device)
    cells = torch.div(true_sizes + stride - 1, stride, rounding_mode="floor")
    inside_y = rows[None, :] < cells[:, 0:1]
    inside_x = columns[None, :] < cells[:, 1:2]
    inside = inside_y[:, :, None] & inside_x[:, None, :] & ~ignore
    return inside[:, None].float()


def _size_and_offset(
    stage: StageOutput, targets: CenterTargets, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of L1 errors read at the centre cells, over both channels of valid boxes."""
    weight = valid[..., None]
    size = ((_at(stage.size, targets.cell) - targets.size).abs() * weight).sum()
    offset = ((_at(stage.offset, targets.cell) - targets.offset).abs() * weight).sum()
    return size, offset


def _at(features: Tensor, index: Tensor) -> Tensor:
    """(B, N, C) values of (B, C, h, w) ``features`` at flattened cells (B, N)."""
    where = index[:, None].expand(-1, features.shape[1], -1)
    return features.float().flatten(2).gather(2, where).transpose(1, 2)


def _same(value: Tensor) -> Tensor:
    return value

"""The losses of the TensorFlow original, slips included: what ``model.compat`` minimises.

Each class overrides what its parent does as it was meant.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmac.data.batch import Batch
from deepmac.losses.color import cells_of, rgb_to_lab
from deepmac.losses.criterion import DeepMACCriterion
from deepmac.losses.grids import Grid, frames_of
from deepmac.losses.options import LossOptions
from deepmac.losses.second_view import SecondView, Teacher, View, view_images
from deepmac.losses.weak import WeakLosses, dice, loss_at_points
from deepmac.nn.conventions import Conventions
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.full_resolution import original_resize
from deepmac.nn.roi_crop import corner_aligned_crop


def criterion_of(options: LossOptions, conventions: Conventions) -> DeepMACCriterion:
    """The criterion that trains a network of these conventions."""
    if conventions.losses == "today":
        return DeepMACCriterion(options)
    return OriginalCriterion(options, conventions)


class OriginalCriterion(DeepMACCriterion):
    """Clipped heatmap probabilities, wider Gaussians, and each replica normalised by itself.

    Full-resolution masks are compared at every pixel of the input.

    Args:
        options: weights and variants.
        conventions: how mask losses are averaged.
    """

    def __init__(self, options: LossOptions, conventions: Conventions) -> None:
        super().__init__(
            replace(
                options,
                radius_rule="original",
                probability_clip=1e-4,
                mask_normalization=conventions.mask_normalization or options.mask_normalization,
            )
        )
        self.weak = OriginalWeakLosses(options)
        self.second_view = OriginalSecondView(options)

    def _mask(self, logits: Tensor, batch: Batch, full_resolution: bool) -> Tensor:
        if full_resolution:
            height, width = batch["mask_targets"].shape[-2:]
            logits = original_resize(logits, (height, width))
        return super()._mask(logits, batch, full_resolution)

    def _masked_loss(self, logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
        """Cells that do not count have the logit 0, so that each still adds log 2."""
        logits = logits * counted
        if self.options.mask_loss == "dice":
            return dice(logits, targets)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((2, 3))

    def _count(self, weight: Tensor) -> Tensor:
        return weight.sum().clamp(min=1.0)


class OriginalWeakLosses(WeakLosses):
    """Boxes a cell too wide, crops taken for whole inputs, zeros that hide negative logits."""

    def inside(self, batch: Batch, grid: Grid, full_resolution: bool) -> Tensor:
        """Cells of whole inputs, even for crops."""
        return original_inside_boxes(batch["boxes"], frames_of(batch, True), grid)

    def alone(self, batch: Batch, grid: Grid, full_resolution: bool) -> Tensor:
        """Of whole inputs, even for crops."""
        frames = frames_of(batch, True)
        return original_alone_in_class(
            batch["boxes"], batch["labels"], batch["valid"], frames, grid
        )

    def box_consistency(
        self, logits: Tensor, inside: Tensor, batch: Batch, full_resolution: bool
    ) -> Tensor:
        """Box-relative logits are cropped by the box once more."""
        if not full_resolution:
            boxes, image = batch["mask_boxes"], frames_of(batch, True)[0, 0]
            logits, inside = (original_crop(each, boxes, image) for each in (logits, inside))
        return super().box_consistency(logits, inside, batch, full_resolution)

    def within(self, logits: Tensor, inside: Tensor) -> Tensor:
        """A zero from outside the box hides every negative logit within."""
        return logits * inside

    def color_consistency(
        self,
        logits: Tensor,
        inside: Tensor,
        batch: Batch,
        full_resolution: bool,
        stride: int,
    ) -> Tensor:
        """There is none for crops; beyond the map lies black with a probability of 0."""
        if not full_resolution:
            return logits.new_zeros(logits.shape[:2])
        colors = original_lab_of_map(batch["images"], stride)
        return self.neighbours(logits, colors, inside, None)

    def point_supervision(
        self, logits: Tensor, points: Tensor, labels: Tensor, frames: Tensor
    ) -> Tensor:
        """The mean over all K, missing ones as zeros; outside the grid its edge is read."""
        loss, there, _ = loss_at_points(logits, points, labels, frames)
        return torch.where(there, loss, 0.0).mean(dim=2)


class OriginalSecondView(SecondView):
    """Views sampled with corners on pixel centres, and an inverse that is right for few of them."""

    def look(self, network: DeepMAC, images: Tensor, view: View) -> Tensor:
        """Filled with the normalisation's mean: the original warps normalised images."""
        fill = network.normalize.mean.flatten()
        return view_images(images, view, fill=fill, crop=corner_aligned_crop)

    def undo(
        self,
        logits: Tensor,
        boxes: Tensor,
        view: View,
        image_size: tuple[int, int],
        full_resolution: bool,
    ) -> Teacher:
        """Crops are brought back as if they were whole maps.

        Right only for a view that either scales and does not shift, or shifts and neither scales
        nor flips.
        """
        inverse = View(-view.shift, 1 / view.scale, view.flip)
        back = view_images(logits, inverse, crop=corner_aligned_crop)
        return Teacher(back, torch.ones_like(logits))


def original_inside_boxes(boxes: Tensor, frames: Tensor, grid: Grid) -> Tensor:
    """The original's filled boxes: cells with ``start <= index <= end``, both ends included.

    That is half a cell off and up to a cell too wide; arguments as in :func:`inside_boxes`.
    """
    sides = (frames[..., 2:] - frames[..., :2])[..., [0, 1, 0, 1]]
    origin = frames[..., [0, 1, 0, 1]]
    size = torch.tensor([grid[1], grid[0]] * 2, device=boxes.device, dtype=boxes.dtype)
    x0, y0, x1, y1 = ((boxes - origin) / sides * size).unbind(-1)
    row = torch.arange(grid[0], device=boxes.device)
    column = torch.arange(grid[1], device=boxes.device)
    rows = (row >= y0[..., None]) & (row <= y1[..., None])
    columns = (column >= x0[..., None]) & (column <= x1[..., None])
    return (rows[..., :, None] & columns[..., None, :]).to(boxes.dtype)


def original_crop(grids: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Crop each instance's own grid by its box, taken as if the grid covered the whole input.

    Args:
        grids: (B, N, S, S).
        boxes: (B, N, 4) xyxy in input pixels.
        image: (4,) the input, ``(0, 0, width, height)``.

    Returns:
        (B, N, S, S), sampled as ``matmul_crop_and_resize`` does.
    """
    batch, count, height, width = grids.shape
    scale = torch.stack([width / image[2], height / image[3]]).repeat(2)
    crops = corner_aligned_crop(
        grids.reshape(batch * count, 1, height, width),
        (boxes * scale).reshape(batch * count, 1, 4),
        (height, width),
    )
    return crops.reshape(batch, count, height, width)


def original_alone_in_class(
    boxes: Tensor, labels: Tensor, valid: Tensor, frames: Tensor, grid: Grid
) -> Tensor:
    """As :func:`alone_in_class` with the original's filled boxes.

    The caller passes whole inputs as ``frames``, as the original does even for crops; rows that
    are not ``valid`` are given the map of their label (0 in padding).
    """
    filled = original_inside_boxes(boxes, frames, grid)
    same = (labels[:, :, None] == labels[:, None, :]) & valid[:, None, :]
    covering = torch.matmul(same.to(filled.dtype), filled.flatten(2)).reshape(filled.shape)
    return (covering < 1.5).to(boxes.dtype)


def original_lab_of_map(images: Tensor, stride: int) -> Tensor:
    """:func:`deepmac.losses.color.lab_of_map`, sampled bilinearly once per cell.

    That is the mean of its middle four pixels instead of all.
    """
    middle = slice(stride // 2 - 1, stride // 2 + 1)
    blocks = cells_of(images, stride)[:, :, :, middle, :, middle]
    return rgb_to_lab(blocks.mean(dim=(3, 5)) / 255)[:, None]

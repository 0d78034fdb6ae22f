"""The one way from a network, a picture's features and boxes to masks in the picture's pixels.

``crop_probabilities`` asks the network, ``box_probabilities`` from the pictures on;
``PictureMasks`` holds its answer for one picture, a small square for each box, and makes a mask of
it only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac.errors import UserError
from deepmac.models.refining import Refine
from deepmac.nn.conventions import PasteRule
from deepmac.nn.network import SegmentationNetwork
from deepmac.nn.tracing import static_shapes
from deepmac.predict.boxes import Boxes
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.paste import masks_to_rles, paste_mask
from deepmac.predict.points import Points, clicks_of
from deepmac.predict.second_look import finer_crops

Floats = NDArray[np.float32]

BOXES_PER_STEP = 64
"""Boxes of one image that go through the mask head at once: the bound on memory."""


def crop_probabilities(
    network: SegmentationNetwork,
    stage: Any,
    boxes: Tensor,
    valid: Tensor | None = None,
    labels: Tensor | None = None,
    points: Tensor | None = None,
) -> Tensor:
    """Foreground probabilities within boxes, a bounded number of boxes at a time.

    Args:
        network: in eval mode.
        stage: its last one.
        boxes: (B, N, 4) xyxy in input pixels.
        valid: (B, N) bool; other rows mean nothing.
        labels: (B, N) class slots, for networks with one mask per class.
        points: (B, N, K, 3) clicks x, y, label in input pixels; NaN where there is none.

    Returns:
        (B, N, S, S) float32 on the device; where shapes are static, all boxes go at once.

    Raises:
        UserError: clicks, and the network does not take any.
    """
    step = max(1, boxes.shape[1]) if static_shapes(boxes) else BOXES_PER_STEP
    parts = []
    for start in range(0, max(1, boxes.shape[1]), step):
        some = slice(start, start + step)
        parts.append(
            network.mask_probabilities(
                stage,
                boxes[:, some],
                None if valid is None else valid[:, some],
                None if labels is None else labels[:, some],
                clicks_of(None if points is None else points[:, some]),
            ).float()
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def box_probabilities(
    network: SegmentationNetwork,
    images: Tensor,
    boxes: Tensor,
    valid: Tensor,
    lap: Callable[[str], None] = lambda stage: None,
    points: Tensor | None = None,
) -> Floats:
    """One backbone pass for each image, then the mask head for all boxes.

    Args:
        network: in eval mode.
        images: (B, 3, H, W), as the network takes them.
        boxes: (B, N, 4) xyxy in input pixels.
        valid: (B, N) bool, False for padding.
        lap: told the stage that has just ended, ``backbone`` or ``heads``.
        points: (B, N, K, 3) clicks, see :func:`crop_probabilities`.

    Returns:
        (M, P, P) float32, the M valid rows in their order.
    """
    stage = network.last_stage(images)
    lap("backbone")
    found = crop_probabilities(network, stage, boxes, valid, points=points)[valid]
    crops: Floats = found.cpu().numpy()
    lap("heads")
    return crops


def mask_scores(probabilities: Floats, threshold: float = 0.5) -> NDArray[np.float64]:
    """How good the network thinks its masks are: the expected overlap over the expected union.

    With every cell an independent coin of its probability, a mask that takes the cells above the
    threshold meets the truth in sum(p inside) cells, and both together hold
    count(inside) + sum(p outside).

    Args:
        probabilities: (N, S, S) within the boxes.
        threshold: as for the masks.

    Returns:
        (N,) in 0..1; 0 for an empty mask.
    """
    inside = probabilities > threshold
    met = np.where(inside, probabilities, 0).sum(axis=(1, 2), dtype=np.float64)
    outside = probabilities.sum(axis=(1, 2), dtype=np.float64) - met
    union = inside.sum(axis=(1, 2)) + outside
    return np.divide(met, union, out=np.zeros_like(met), where=met > 0)


def require_finite(values: Tensor | NDArray[Any], about: str) -> None:
    """Refuse answers that mean nothing.

    Args:
        values: of a network.
        about: what they are an answer to, such as ``this picture`` or a path.

    Raises:
        UserError: one is NaN or infinite.
    """
    finite = torch.isfinite(values) if isinstance(values, Tensor) else np.isfinite(values)
    if not bool(finite.all()):
        raise UserError(
            f"the model's answer for {about} is not finite: its weights have probably diverged; "
            "give an earlier checkpoint, or train with a lower learning rate"
        )


@dataclass(frozen=True)
class PictureMasks:
    """Masks of one picture's boxes, pasted one by one when they are asked for.

    Attributes:
        crops: (N, S, S) foreground probabilities.
        frames: (N, 4) xyxy in the picture's pixels: what each crop covers.
        scores: (N,) see ``mask_scores``.
        size: (height, width) of the picture.
        threshold: a pixel belongs to a mask above it.
        rule: how pixels meet cells.
    """

    crops: Floats
    frames: Boxes
    scores: NDArray[np.float64]
    size: tuple[int, int]
    threshold: float = 0.5
    rule: PasteRule = "roi_align"

    @classmethod
    def of(
        cls,
        network: SegmentationNetwork,
        crops: Tensor | Floats,
        boxes: Boxes,
        size: tuple[int, int],
        *,
        threshold: float,
        about: str = "this picture",
        refine: Refine = "none",
        picture: NDArray[np.uint8] | None = None,
        places: Boxes | None = None,
        spec: InputSpec | None = None,
        points: Points | None = None,
    ) -> PictureMasks:
        """Masks out of a network's answer.

        Args:
            network: that gave it.
            crops: (N, S, S) of ``crop_probabilities``.
            boxes: (N, 4) xyxy in the picture's pixels.
            size: (height, width) of the picture.
            threshold: a pixel belongs to a mask above it.
            about: what the picture is called in a message.
            refine: how masks are made finer than the network's cells.
            picture: (H, W, 3) uint8 RGB, which refinement looks at.
            places: (N, 4) the boxes in pixels of ``picture``, where that is but a part.
            spec: how the network was shown the picture, for more looks at it.
            points: (N, K, 3) clicks in pixels of ``picture``, which those looks have to know.

        Raises:
            UserError: a crop is not finite.
        """
        values = crops.float().cpu().numpy() if isinstance(crops, Tensor) else crops
        require_finite(values, about)
        scores = mask_scores(values, threshold)  # of what the network says, however it is refined
        if picture is not None:
            values = finer_crops(
                network,
                values,
                boxes if places is None else places,
                picture,
                refine=refine,
                threshold=threshold,
                spec=spec or InputSpec.of(network),
                points=points,
            )
        frames = network.mask_frames(torch.from_numpy(boxes)).numpy()
        return cls(values, frames, scores, size, threshold, network.conventions.paste_rule)

    def __len__(self) -> int:
        return len(self.crops)

    def mask(self, row: int) -> NDArray[np.bool_]:
        """(height, width) of one box."""
        return paste_mask(self.crops[row], self.frames[row], *self.size, self.threshold, self.rule)

    def rle(self, row: int) -> dict[str, Any]:
        """COCO run lengths of one box's mask; the full-size mask is never made."""
        some = slice(row, row + 1)
        return masks_to_rles(
            self.crops[some], self.frames[some], *self.size, self.threshold, self.rule
        )[0]

    def rles(self) -> Iterator[dict[str, Any]]:
        """Run lengths of every box's mask, one after the other."""
        return map(self.rle, range(len(self)))

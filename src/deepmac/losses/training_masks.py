"""Which boxes go through the mask head in a training step, and with whom they share statistics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deepmac.data.batch import Batch
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.stages import Stage


def training_mask_logits(network: DeepMAC, stage: Stage, boxes: Tensor, rows: Tensor) -> Tensor:
    """Mask logits of ground-truth boxes.

    The original sends every row through the mask head, padding too, so that all of them enter its
    batch statistics; its first release did so one image at a time. Both matter in training only.

    Args:
        network: in the mode of the step.
        stage: the maps of one backbone output.
        boxes: (B, N, 4) xyxy in input pixels.
        rows: (B, N) bool, those that carry a loss.

    Returns:
        (B, N, S, S), or (B, N, h, w) in full-resolution mode.
    """
    return _ROWS[network.conventions.head_rows](network, stage, boxes, rows)


def training_boxes(network: DeepMAC, batch: Batch) -> Tensor:
    """(B, N, 4) boxes that masks are predicted in.

    Where boxes are jittered, the original moves those that cut the targets and forgets these.
    """
    return batch[network.conventions.head_boxes]


def _image_by_image(network: DeepMAC, stage: Stage, boxes: Tensor, rows: Tensor) -> Tensor:
    return torch.cat(
        [network.mask_logits(stage.of_image(i), boxes[i : i + 1]) for i in range(len(boxes))]
    )


_ROWS: dict[str, Callable[[DeepMAC, Stage, Tensor, Tensor], Tensor]] = {
    "supervised": lambda network, stage, boxes, rows: network.mask_logits(stage, boxes, rows),
    "all": lambda network, stage, boxes, rows: network.mask_logits(stage, boxes),
    "per_image": _image_by_image,
}

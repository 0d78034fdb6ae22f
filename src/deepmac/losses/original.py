"""Which boxes go through the mask head in a training step, and with whom they share statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deepmac.nn.deepmac import DeepMAC, StageOutput


def training_mask_logits(
    network: DeepMAC, stage: StageOutput, boxes: Tensor, rows: Tensor
) -> Tensor:
    """Mask logits of ground-truth boxes.

    The original sends every row through the mask head, padding too, so that all of them enter its
    batch statistics; its first release did so one image at a time. Both matter in training only.

    Args:
        network: in the mode of the step.
        stage: the maps of one backbone output.
        boxes: (B, N, 4) xyxy in input pixels.
        rows: (B, N) bool, those that carry a loss; a network with ``compat`` takes all.

    Returns:
        (B, N, S, S), or (B, N, h, w) in full-resolution mode.
    """
    if network.compat is None:
        return network.mask_logits(stage, boxes, rows)
    if network.compat == "tf_latest":
        return network.mask_logits(stage, boxes)
    images = range(len(boxes))
    return torch.cat([network.mask_logits(_image(stage, i), boxes[i : i + 1]) for i in images])


def training_boxes(network: DeepMAC, batch: Mapping[str, Tensor]) -> Tensor:
    """(B, N, 4) boxes that masks are predicted in.

    Where boxes are jittered, the original moves those that cut the targets and forgets these.
    """
    return batch["mask_boxes" if network.compat is None else "boxes"]


def _image(stage: StageOutput, index: int) -> StageOutput:
    maps = (None if one is None else one[index : index + 1] for one in stage)
    return StageOutput(*maps)  # type: ignore[arg-type]

"""Deep-MARC's two stages with shapes that a graph can have.

torchvision drops boxes as it goes, so its shapes depend on the picture. Here what it would drop
stays as a row with a score of 0; suppression alone has a result of free length, cut to the number
that the next step takes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import nms, roi_align

from deepmac.nn.centernet import Detections, clip_boxes
from deepmac.nn.deepmarc.model import DeepMARC

_SMALLEST = {"proposal": 1e-3, "detection": 1e-2}  # sides below which torchvision drops a box
_SUPPRESSED_AT_ONCE = 2000  # best pairs of box and class that compete; torchvision takes all


class StaticTwoStage(nn.Module):
    """``network.detect`` of a DeepMARC for one picture.

    Args:
        network: in eval mode.
    """

    def __init__(self, network: DeepMARC) -> None:
        super().__init__()
        self.network = network

    def forward(self, stage: dict[str, Tensor], true_sizes: Tensor) -> Detections:
        """As ``DeepMARC.detect``: ``stage`` of one picture, ``true_sizes`` (1, 2) int."""
        proposals, there = self._proposals(stage, true_sizes)
        heads = self.network.roi_heads
        crops = self._crops(stage, proposals)
        logits, deltas = heads.box_predictor(heads.box_head(crops))
        scores = F.softmax(logits.float(), dim=-1)[:, 1:]
        boxes = heads.box_coder.decode(deltas.float(), [proposals])[:, 1:]
        classes = scores.shape[1]
        boxes = clip_boxes(boxes.flatten(0, 1)[None], true_sizes)[0]
        scores = torch.where(there[:, None], scores, 0.0).flatten()
        kept = (scores > heads.score_thresh) & _has_area(boxes, _SMALLEST["detection"])
        scores, index = torch.where(kept, scores, 0.0).topk(min(_SUPPRESSED_AT_ONCE, len(scores)))
        boxes, labels = boxes[index], index % classes
        index, found = _suppressed(
            boxes, scores, labels, heads.nms_thresh, self.network.max_detections
        )
        scores = torch.where(found, scores[index], 0.0)
        live = scores > 0  # rows without a detection are all zeros, as the network's own
        return Detections(
            torch.where(live[:, None], boxes[index], 0.0)[None],
            torch.where(live, labels[index], 0)[None],
            scores[None],
        )

    def _proposals(self, stage: dict[str, Tensor], true_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 4) boxes of the first stage, and (P,) bool: which of them there are."""
        rpn, levels = self.network.rpn, list(stage.values())
        height, width = (side * self.network.stride for side in levels[0].shape[-2:])
        picture = ImageList(levels[0].new_zeros(()).expand(1, 3, height, width), [(height, width)])
        (anchors,) = rpn.anchor_generator(picture, levels)
        best, chosen, level_of, start = [], [], [], 0
        for level, (objectness, deltas) in enumerate(zip(*rpn.head(levels), strict=True)):
            flat = objectness[0].permute(1, 2, 0).flatten()
            own = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1).flatten(0, 2)
            top, index = flat.topk(min(rpn.pre_nms_top_n(), len(flat)))
            chosen.append(rpn.box_coder.decode(own[index], [anchors[start + index]])[:, 0])
            best.append(top.sigmoid())
            level_of.append(torch.full_like(index, level))
            start += len(flat)
        boxes = clip_boxes(torch.cat(chosen)[None], true_sizes)[0]
        scores = torch.cat(best)
        kept = _has_area(boxes, _SMALLEST["proposal"]) & (scores >= rpn.score_thresh)
        scores = torch.where(kept, scores, -1.0)
        index, found = _suppressed(
            boxes, scores, torch.cat(level_of), rpn.nms_thresh, rpn.post_nms_top_n()
        )
        return boxes[index], found & kept[index]

    def _crops(self, stage: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """(P, C, S, S): each box from its own level. A thousand boxes need the operator."""
        pool = self.network.roi_heads.box_roi_pool
        level_of = pool.map_levels([boxes])[:, None, None, None]
        rois = F.pad(boxes, (1, 0))
        total = boxes.new_zeros(())
        for level, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales, strict=True)):
            crops = roi_align(
                stage[name], rois, tuple(pool.output_size), scale, pool.sampling_ratio
            )
            total = total + torch.where(level_of == level, crops, 0.0)
        return total


def _suppressed(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, count: int
) -> tuple[Tensor, Tensor]:
    """(count,) rows that survive suppression within their group, best first, and which exist."""
    apart = groups.to(boxes.dtype)[:, None] * (boxes.max() + 1)
    kept = nms(boxes + apart, scores, threshold)
    index = torch.cat([kept, kept.new_zeros(count)])[:count]
    return index, torch.arange(count, device=kept.device) < kept.shape[0]


def _has_area(boxes: Tensor, least: float) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= least).all(dim=1)

"""From network outputs to boxes and masks in the pixels of the original image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.evaluation.results import ImageResult, image_result
from deepmac.nn.deepmac import DeepMAC, StageOutput
from deepmac.postprocess import PasteRule, masks_to_rles


@torch.no_grad()
def predict_batch(
    network: DeepMAC,
    stage: StageOutput,
    batch: Mapping[str, Tensor],
    class_map: ClassMap,
    *,
    min_score: float = 0.0,
) -> list[ImageResult]:
    """Detections with masks, and masks of the given boxes, for every image of a padded batch.

    Args:
        network: in eval mode.
        stage: its last output for ``batch["images"]``.
        batch: the padded batch; ``boxes`` are the given ones.
        class_map: class slot -> category id.
        min_score: detections below it are left out before the mask head runs.
    """
    detections = network.detect(stage, batch["true_sizes"])
    wanted = (detections.scores >= min_score) & (detections.scores > 0)
    probabilities = network.mask_probabilities(stage, detections.boxes, wanted).cpu()
    given = network.mask_probabilities(stage, batch["boxes"], batch["valid"]).cpu()
    boxes, given_boxes = detections.boxes.float().cpu(), batch["boxes"].float().cpu()
    scores, labels, wanted = detections.scores.cpu(), detections.labels.cpu(), wanted.cpu()
    category_of = np.asarray(class_map.category_ids, dtype=np.int64)
    annotation_ids, valid = batch["annotation_ids"].cpu(), batch["valid"].cpu()
    geometry, sizes = batch["geometry"].cpu(), batch["original_sizes"].cpu()
    paste: PasteRule = "corner_aligned" if network.compat else "roi_align"
    predictions = []
    for i, image_id in enumerate(batch["image_ids"].tolist()):
        height, width = sizes[i].tolist()
        keep = wanted[i]
        found = to_original(boxes[i][keep], geometry[i], height, width)
        own = to_original(given_boxes[i][valid[i]], geometry[i], height, width)
        own_masks = masks_to_rles(given[i][valid[i]], own, height, width, rule=paste)
        predictions.append(
            image_result(
                image_id,
                boxes=found,
                scores=scores[i][keep],
                category_ids=category_of[labels[i][keep].numpy()],
                masks=masks_to_rles(probabilities[i][keep], found, height, width, rule=paste),
                gt_box_masks=dict(
                    zip(annotation_ids[i][valid[i]].tolist(), own_masks, strict=True)
                ),
            )
        )
    return predictions


def to_original(boxes: Tensor, geometry: Tensor, height: int, width: int) -> Tensor:
    """(N, 4) xyxy boxes in input pixels -> original pixels, clipped to the image.

    Args:
        boxes: (N, 4) in input pixels.
        geometry: (2, 3) affine from original to input pixels, without rotation or shear.
        height: of the original image.
        width: of the original image.
    """
    scale = torch.stack([geometry[0, 0], geometry[1, 1]]).repeat(2)
    shift = geometry[:, 2].repeat(2)
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    return torch.minimum(((boxes - shift) / scale).clamp(min=0), limit)

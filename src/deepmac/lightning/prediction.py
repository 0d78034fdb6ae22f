"""From network outputs to boxes and masks in the pixels of the original image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.data.batch import Batch
from deepmac.evaluation.results import ImageResult, image_result
from deepmac.lightning.xla import device as xla
from deepmac.nn.centernet import no_detections
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.masks import PictureMasks, crop_probabilities, require_finite

_ON_HOST = ("annotation_ids", "valid", "geometry", "original_sizes", "image_ids", "filler")


@torch.no_grad()
def predict_batch(
    network: SegmentationNetwork,
    stage: Any,
    batch: Batch,
    class_map: ClassMap,
    *,
    min_score: float = 0.0,
    threshold: float = 0.5,
) -> list[ImageResult]:
    """Detections with masks, and masks of the given boxes, for every image of a padded batch.

    Args:
        network: in eval mode.
        stage: its ``last_stage`` of ``batch["images"]``.
        batch: the padded batch; ``boxes`` are the given ones. Rows that are ``filler`` get none.
        class_map: class slot -> category id.
        min_score: detections below it are left out before the mask head runs.
        threshold: a pixel belongs to a mask above this probability.

    Raises:
        UserError: answers that are not finite.
    """
    if network.detector:
        detections = network.detect(stage, batch["true_sizes"])
    else:
        detections = no_detections(len(batch["boxes"]), batch["boxes"].device)
    wanted = (detections.scores >= min_score) & (detections.scores > 0)
    if class_map.unused_category_ids:
        used = [i not in class_map.unused_category_ids for i in class_map.category_ids]
        wanted &= torch.tensor(used, device=wanted.device)[detections.labels]
    probabilities = crop_probabilities(network, stage, detections.boxes, wanted, detections.labels)
    given = crop_probabilities(network, stage, batch["boxes"], batch["valid"], batch["labels"])
    host = xla.fetch(
        {
            "probabilities": probabilities,
            "given": given,
            "boxes": detections.boxes.float(),
            "given_boxes": batch["boxes"].float(),
            "scores": detections.scores,
            "labels": detections.labels,
            "wanted": wanted,
            **{name: cast("Mapping[str, Tensor]", batch)[name] for name in _ON_HOST},
        }
    )
    probabilities, given = host["probabilities"], host["given"]
    boxes, given_boxes = host["boxes"], host["given_boxes"]
    scores, labels, wanted = host["scores"], host["labels"], host["wanted"]
    annotation_ids, valid = host["annotation_ids"], host["valid"]
    geometry, sizes, filler = host["geometry"], host["original_sizes"], host["filler"]
    category_of = np.asarray(class_map.category_ids, dtype=np.int64)
    predictions = []
    for i, image_id in enumerate(host["image_ids"].tolist()):
        if filler[i]:
            continue
        height, width = sizes[i].tolist()
        keep, about = wanted[i], f"image {image_id}"
        require_finite(scores[i], about)
        found = to_original(boxes[i][keep], geometry[i], height, width)
        own = to_original(given_boxes[i][valid[i]], geometry[i], height, width)
        masks, own_masks = (
            PictureMasks.of(
                network,
                crops,
                boxes_in_picture.double().numpy(),
                (height, width),
                threshold=threshold,
                about=about,
            ).rles()
            for crops, boxes_in_picture in (
                (probabilities[i][keep], found),
                (given[i][valid[i]], own),
            )
        )
        predictions.append(
            image_result(
                image_id,
                boxes=found,
                scores=scores[i][keep],
                category_ids=category_of[labels[i][keep].numpy()],
                masks=list(masks),
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

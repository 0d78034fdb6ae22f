"""This project's losses on the original's ground truth, by the original's names."""

from __future__ import annotations

import numpy as np
import torch
from table import Arrays
from torch import Tensor

from deepmac.data.original.soft_targets import original_mask_targets
from deepmac.losses.options import LossOptions
from deepmac.losses.original import criterion_of
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.stages import StageOutput
from deepmac.protobuf.text_proto import Message, parse_text_proto

NAMES = {
    "heatmap": "object_center",
    "size": "box/scale",
    "offset": "box/offset",
    "mask": "deep_mask_estimation",
    "box_consistency": "deep_mask_box_consistency",
    "color_consistency": "deep_mask_color_consistency",
    "point_supervision": "deep_mask_pointly_supervised",
}
WEIGHTS = {"heatmap": 1.0, "size": float(np.float32(0.1)), "offset": 1.0, "mask": 5.0}
WEAK = {
    "box_consistency": "box_consistency_loss_weight",
    "color_consistency": "color_consistency_loss_weight",
    "point_supervision": "pointly_supervised_keypoint_loss_weight",
}


def batch_of(arrays: Arrays, model: DeepMAC) -> tuple[dict[str, Tensor], Tensor]:
    """The padded batch, and full-size masks."""
    dtype = next(model.parameters()).dtype
    side = arrays["images"].shape[1]
    boxes = torch.from_numpy(arrays["gt::boxes"])[..., [1, 0, 3, 2]].to(dtype) * side
    classes = torch.from_numpy(arrays["gt::classes"])
    labels, valid = classes.argmax(2), torch.from_numpy(arrays["gt::weights"]) > 0
    masked = [i for i in _masks(arrays).scalars("allowed_masked_classes_ids")]
    allowed = torch.ones_like(valid)
    if masked:
        allowed = torch.isin(labels, torch.tensor([int(i) - 1 for i in masked]))
    batch = {
        "images": torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2),
        "true_sizes": torch.from_numpy(arrays["batch_shapes"][:, :2]).long(),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": labels,
        "valid": valid,
        "mask_valid": valid & allowed,
        "ignore": torch.zeros(len(boxes), side // 4, side // 4, dtype=torch.bool),
    }
    if "gt::keypoints" in arrays:
        points = torch.from_numpy(arrays["gt::keypoints"])[..., [1, 0]]
        batch["points"] = points.to(dtype) * side
        batch["point_labels"] = (torch.from_numpy(arrays["gt::keypoint_depths"]) > 0).to(dtype)
    return batch, torch.from_numpy(arrays["gt::masks"]).to(dtype)


def losses_of(
    model: DeepMAC,
    stages: list[StageOutput],
    batch: dict[str, Tensor],
    masks: Tensor,
    arrays: Arrays,
) -> dict[str, Tensor]:
    weak = {name: float(_number(_masks(arrays), key)) for name, key in WEAK.items()}
    options = LossOptions.from_dict({name: {"weight": value} for name, value in weak.items()})
    criterion = criterion_of(options, model.conventions)
    logits = [mask_logits(model, stage, batch["boxes"]) for stage in stages]
    targets = masks
    if not model.full_resolution:
        targets = original_mask_targets(masks, batch["boxes"], model.mask_size)
    batch = {**batch, "mask_targets": targets * batch["mask_valid"][..., None, None]}
    losses = criterion(
        stages, logits, batch, stride=model.stride, full_resolution=model.full_resolution
    )
    weights = WEIGHTS | {name: weight for name, weight in weak.items() if weight}
    return {NAMES[name]: weight * losses[name] for name, weight in weights.items()}


def mask_logits(model: DeepMAC, stage: StageOutput, boxes: Tensor) -> Tensor:
    """Of every row, padding too; image by image in the release, whose norms see one at a time."""
    if model.conventions.compat != "tf_release":
        return model.mask_logits(stage, boxes)
    images = [
        StageOutput(*(None if maps is None else maps[i : i + 1] for maps in stage))
        for i in range(len(boxes))
    ]
    rows = [model.mask_logits(one, boxes[i : i + 1]) for i, one in enumerate(images)]
    return torch.cat(rows)


def _masks(arrays: Arrays) -> Message:
    message = parse_text_proto(str(arrays["meta::config"])).message(
        "center_net.deepmac_mask_estimation"
    )
    assert message is not None
    return message


def _number(message: Message, key: str) -> float:
    values = message.scalars(key)
    return float(values[0]) if values else 0.0

"""A model's masks beside the true ones, on a data set with masks that it was not trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile
from deepmac.data.annotations.problems import describe_kinds
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.data.annotations.segmentation import find_fault, is_absent, segmentation_rle
from deepmac.errors import DataError
from deepmac.evaluation.mask_quality import (
    MaskQuality,
    filled_box,
    filled_ellipse,
    mask_quality,
)
from deepmac.label.digest import model_digest
from deepmac.label.inference import label_parts
from deepmac.label.masks.calibration import Calibration, calibrate
from deepmac.label.masks.records import MaskOptions
from deepmac.label.merge import collect
from deepmac.label.parts import Parts
from deepmac.label.plan import make_plan
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec

_MEDIUM, _LARGE = 32**2, 96**2  # COCO's bounds, in pixels of the true mask
_NOTHING = MaskQuality(iou=0.0, boundary_iou=0.0)


def calibrate_model(
    model: SegmentationNetwork,
    annotations: Path,
    images: Path,
    masks: MaskOptions,
    **how: Any,
) -> Calibration:
    """Label the objects that have masks anew, and fit the scores to the overlap.

    Args:
        model: from ``load_model``.
        annotations: COCO json with masks; faulty entries and crowds are left out.
        images: folder of its pictures.
        masks: as the labelling will make them.
        how: further arguments of :func:`deepmac.label.inference.label_parts`.

    Returns:
        The map; ``measured`` also holds the mean IoU of the filled boxes and ellipses, and what
        :func:`quality_figures` finds.

    Raises:
        DataError: too few objects with masks.
    """
    boxes = read_boxes(annotations, images, "coco")
    truths = _truths(boxes)
    content = {**boxes.content, "annotations": [entry for entry, _ in truths]}
    plan = make_plan(BoxFile(boxes.path, "coco", content, boxes.digest), images, "skip")
    if not plan.parts:
        reasons = describe_kinds(plan.problems) or "no object has a mask"
        raise DataError(f"{annotations} holds nothing to calibrate on ({reasons}); check it.")
    with tempfile.TemporaryDirectory(prefix="deepmac-calibrate-") as folder:
        parts = Parts(Path(folder) / "parts", {})
        spec = InputSpec.of(model)
        label_parts(model, plan, parts, masks, spec=spec, on_error="skip", **how)
        labelled = collect(plan, parts)
        raw, qualities, areas, boxed, rounded, image_ids = [], [], [], [], [], []
        for row, entry, record in labelled.annotations():
            if np.isnan(labelled.raw[row]):
                continue
            truth = truths[row][1]
            height, width = truth["size"]
            x, y, w, h = entry["bbox"]
            box = [x, y, x + w, y + h]
            raw.append(labelled.raw[row])
            qualities.append(mask_quality(record["rle"], truth) if record else _NOTHING)
            areas.append(int(coco_mask.area(truth)))
            boxed.append(_iou(filled_box(box, height, width), truth))
            rounded.append(_iou(filled_ellipse(box, height, width), truth))
            image_ids.append(entry["image_id"])
        parts.release()
    digest = model_digest(model)
    iou = np.array([quality.iou for quality in qualities])
    made = calibrate(np.array(raw), iou, image_ids, digest)
    if made.measured is not None:
        made.measured.update(quality_figures(qualities, areas))
        made.measured["mean_iou_filled_box"] = round(float(np.mean(boxed)), 4)
        made.measured["mean_iou_filled_ellipse"] = round(float(np.mean(rounded)), 4)
    return made


def quality_figures(qualities: Sequence[MaskQuality], areas: Sequence[int]) -> dict[str, Any]:
    """What a mean IoU does not tell of masks: edges, how many are good or bad, sizes of objects.

    Args:
        qualities: n masks beside the true ones, at least one.
        areas: n areas of the true masks, pixels.

    Returns:
        ``mean_boundary_iou`` (bands of 2 % of the picture's diagonal, as evaluations have it),
        ``share_at_least_0.9`` and ``share_under_0.5`` of all masks by their IoU, and for each
        of COCO's sizes ``masks_SIZE`` and ``mean_iou_SIZE``, None where there is none: small is
        under 32 x 32 pixels, large over 96 x 96.
    """
    iou = np.array([quality.iou for quality in qualities])
    pixels = np.array(areas)
    figures: dict[str, Any] = {
        "mean_boundary_iou": round(float(np.mean([q.boundary_iou for q in qualities])), 4),
        "share_at_least_0.9": round(float((iou >= 0.9).mean()), 4),
        "share_under_0.5": round(float((iou < 0.5).mean()), 4),
    }
    small, large = pixels < _MEDIUM, pixels > _LARGE
    for name, chosen in (("small", small), ("medium", ~small & ~large), ("large", large)):
        figures[f"masks_{name}"] = int(chosen.sum())
        figures[f"mean_iou_{name}"] = round(float(iou[chosen].mean()), 4) if chosen.any() else None
    return figures


def _truths(boxes: BoxFile) -> list[tuple[dict[str, Any], Any]]:
    """(annotation without its mask, the mask as RLE) of every object with a sound mask."""
    sizes = {
        image["id"]: (image.get("width"), image.get("height"))
        for image in boxes.content["images"]
        if isinstance(image, dict) and isinstance(image.get("id"), int | str)
    }
    found = []
    for entry in boxes.content["annotations"]:
        if not isinstance(entry, dict) or entry.get("iscrowd"):
            continue
        raw, size = entry.get("segmentation"), sizes.get(entry.get("image_id"))
        if is_absent(raw) or size is None:
            continue
        width, height = size
        if not isinstance(width, int) or not isinstance(height, int):
            continue
        if find_fault(raw, height, width) is None:
            rle = segmentation_rle(raw, height, width)  # type: ignore[arg-type]
            if coco_mask.area(rle):
                found.append(({**entry, "segmentation": []}, rle))
    return found


def _iou(first: Any, second: Any) -> float:
    return float(coco_mask.iou([first], [second], [0])[0, 0])

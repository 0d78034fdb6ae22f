"""What a model found in one image, and the COCO results file made of it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from deepmac.errors import UserError
from deepmac.evaluation.mask_quality import Rle
from deepmac.files import atomic_file


class ImageResult(TypedDict):
    """Plain lists, so that it pickles and travels between processes.

    Boxes are xyxy in pixels of the original image, masks are run-length encoded at its size.
    """

    image_id: int
    boxes: list[list[float]]
    scores: list[float]
    category_ids: list[int]
    masks: list[dict[str, Any]] | None
    gt_box_masks: dict[int, dict[str, Any]] | None


def image_result(
    image_id: int,
    *,
    boxes: ArrayLike,
    scores: ArrayLike,
    category_ids: ArrayLike,
    masks: Sequence[Rle] | None = None,
    gt_box_masks: Mapping[int, Rle] | None = None,
) -> ImageResult:
    """Check and pack the predictions for one image.

    Args:
        image_id: the data set's own id.
        boxes: (K, 4) floats, xyxy in pixels of the original image. Arrays, CPU tensors or lists.
        scores: (K,) floats.
        category_ids: (K,) ints, the data set's own ids.
        masks: K run-length encoded masks of the original size; None: the model made none.
        gt_box_masks: masks predicted for given ground-truth boxes, by annotation id; None: the
            model was not asked.

    Raises:
        ValueError: the shapes do not agree.
        UserError: a box or score is not finite.
    """
    box_array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    score_array = np.asarray(scores, dtype=np.float64)
    label_array = np.asarray(category_ids, dtype=np.int64)
    count = len(box_array)
    lengths = (len(score_array), len(label_array), count if masks is None else len(masks))
    if lengths != (count, count, count):
        raise ValueError(
            f"image {image_id}: {count} boxes, but {lengths[0]} scores, {lengths[1]} category ids "
            f"and {lengths[2]} masks"
        )
    if not (np.isfinite(box_array).all() and np.isfinite(score_array).all()):
        raise UserError(
            f"The predictions for image {image_id} hold a box or score that is not finite: the "
            "model's weights have probably diverged; lower the learning rate or use an earlier "
            "checkpoint."
        )
    return ImageResult(
        image_id=int(image_id),
        boxes=box_array.tolist(),
        scores=score_array.tolist(),
        category_ids=label_array.tolist(),
        masks=None if masks is None else [_plain_rle(mask) for mask in masks],
        gt_box_masks=None
        if gt_box_masks is None
        else {int(key): _plain_rle(mask) for key, mask in gt_box_masks.items()},
    )


def write_results_json(
    path: str | os.PathLike[str],
    results: Iterable[ImageResult],
    own_ids: Mapping[int, str | int] | None = None,
) -> int:
    """Write detections as a COCO results file, which ``COCO.loadRes`` and evaluation servers read.

    One detection a line: ``image_id``, ``category_id``, ``bbox`` (xywh in pixels, three decimals),
    ``score`` and, where the model made masks, ``segmentation`` (run-length encoding, text counts).
    The file appears only once it is complete.

    Args:
        path: of the file.
        results: of each image.
        own_ids: the data set's image ids by ours, where it has others than integers.

    Returns:
        Number of detections written.

    Raises:
        UserError: the folder cannot be written.
    """
    target = Path(path)
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as file:
            file.write("[")
            for result in results:
                for detection in coco_detections(result):
                    image_id = detection["image_id"]
                    detection["image_id"] = (own_ids or {}).get(image_id, image_id)
                    file.write(",\n" if written else "\n")
                    json.dump(detection, file, separators=(",", ":"))
                    written += 1
            file.write("\n]\n")
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}; choose another path.") from error
    return written


def coco_detections(result: ImageResult) -> Iterator[dict[str, Any]]:
    """The detections of one image as COCO results entries, in the order given."""
    masks = result["masks"]
    rows = zip(result["boxes"], result["scores"], result["category_ids"], strict=True)
    for position, ((x0, y0, x1, y1), score, category_id) in enumerate(rows):
        entry = {
            "image_id": result["image_id"],
            "category_id": category_id,
            "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
            "score": score,
        }
        if masks is not None:
            rle = masks[position]
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
        yield entry


def _plain_rle(rle: Rle) -> dict[str, Any]:
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    return {"size": [int(side) for side in rle["size"]], "counts": counts}

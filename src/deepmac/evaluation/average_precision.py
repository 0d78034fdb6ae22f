"""COCO average precision of every class, by pycocotools or a library that gives its numbers."""

from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any, Literal, get_args

import numpy as np

from deepmac.errors import ConfigError
from deepmac.evaluation.mask_quality import Rle

Backend = Literal["auto", "vernier", "faster_coco_eval", "pycocotools"]
"""``auto`` is the first of the others that is installed: the soonest done, with equal numbers."""

#: Metric name -> (IoU threshold or None for the mean over .50:.95, COCO's area range).
AP_METRICS: dict[str, tuple[float | None, str]] = {
    "AP": (None, "all"),
    "AP50": (0.50, "all"),
    "AP75": (0.75, "all"),
    "AP_small": (None, "small"),
    "AP_medium": (None, "medium"),
    "AP_large": (None, "large"),
}


def average_precision_by_class(
    iou_type: Literal["bbox", "segm"],
    *,
    image_sizes: dict[int, tuple[int, int]],
    category_ids: Sequence[int],
    truths: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
    max_detections: int = 100,
    backend: Backend = "auto",
) -> dict[str, dict[int, float]]:
    """COCO AP of each class; the AP of a group of classes is the plain mean over its classes.

    Args:
        iou_type: "bbox" compares boxes, "segm" masks.
        image_sizes: image id -> (height, width) of every image to evaluate.
        category_ids: classes to evaluate.
        truths: from ``truth_entry``.
        detections: from ``detection_entry``.
        max_detections: detections an image and class that count, best scores first (COCO: 100).
        backend: the library; all give the same numbers.

    Returns:
        Metric name (``AP_METRICS``) -> category id -> value in 0..1. A class without a single
        ground truth that counts is absent, as COCO leaves it out of every mean; one without
        detections is there with 0.

    Raises:
        ConfigError: the backend is unknown or not installed.
    """
    data_set_class, evaluator_class = load_backend(backend)
    common = {
        "info": {},
        "images": [{"id": i, "height": h, "width": w} for i, (h, w) in image_sizes.items()],
        "categories": [{"id": number, "name": str(number)} for number in category_ids],
    }
    with redirect_stdout(StringIO()):
        loaded = []
        for entries in (truths, detections):
            data_set = data_set_class()
            # ids start at 1: the matching uses 0 for "no match"
            annotations = [{**entry, "id": n} for n, entry in enumerate(entries, start=1)]
            data_set.dataset = {**common, "annotations": annotations}
            data_set.createIndex()
            loaded.append(data_set)
        evaluator = evaluator_class(*loaded, iou_type)
        evaluator.params.maxDets = [max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    return _by_class(np.asarray(evaluator.eval["precision"]), evaluator.params)


def truth_entry(
    image_id: int,
    category_id: int,
    box: Sequence[float],
    *,
    area: float,
    ignore: bool,
    mask: Rle | None = None,
) -> dict[str, Any]:
    """One ground truth in COCO's form; ``box`` is xyxy in pixels of the original image.

    An ignored one is neither found nor missed, and a detection that lies in it (intersection over
    the *detection's* area, as for COCO's crowd regions) is no false positive.
    """
    entry = {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": _xywh(box),
        "area": area,
        "iscrowd": int(ignore),
    }
    return entry if mask is None else {**entry, "segmentation": dict(mask)}


def detection_entry(
    image_id: int,
    category_id: int,
    score: float,
    box: Sequence[float],
    *,
    area: float,
    mask: Rle | None = None,
) -> dict[str, Any]:
    """One detection in COCO's form; ``box`` is xyxy in pixels of the original image."""
    entry = truth_entry(image_id, category_id, box, area=area, ignore=False, mask=mask)
    return {**entry, "score": score}


def load_backend(backend: str) -> tuple[Any, Any]:
    """The data set class and the evaluator class of a backend.

    Raises:
        ConfigError: the backend is unknown or not installed.
    """
    loaders = {
        "vernier": _vernier,
        "faster_coco_eval": _faster_coco_eval,
        "pycocotools": _pycocotools,
    }
    if backend == "auto":
        for load in loaders.values():
            with suppress(ImportError):
                return load()
    if backend not in loaders:
        raise ConfigError(
            f"Unknown evaluation backend {backend!r}; choose one of {', '.join(get_args(Backend))}."
        )
    try:
        return loaders[backend]()
    except ImportError as error:
        raise ConfigError(
            f"The evaluation backend {backend} is not installed; run "
            "`pip install 'deepmac[fast]'` or choose the backend auto."
        ) from error


def _vernier() -> tuple[Any, Any]:
    from pycocotools.coco import COCO
    from vernier import COCOeval

    return COCO, COCOeval


def _faster_coco_eval() -> tuple[Any, Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, COCOeval_faster


def _pycocotools() -> tuple[Any, Any]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _by_class(precision: np.ndarray, params: Any) -> dict[str, dict[int, float]]:
    """``precision``: (threshold, recall, class, area range, 1), -1 where nothing counts."""
    shape = (len(params.iouThrs), len(params.recThrs), len(params.catIds), len(params.areaRng))
    precision = precision.reshape(shape)
    areas = list(params.areaRngLbl)
    values: dict[str, dict[int, float]] = {}
    for metric, (threshold, area) in AP_METRICS.items():
        chosen = _thresholds(params.iouThrs, threshold)
        table = precision[chosen, :, :, areas.index(area)].mean(axis=(0, 1))
        values[metric] = {
            int(category_id): float(value)
            for category_id, value in zip(params.catIds, table, strict=True)
            if value >= 0
        }
    return values


def _thresholds(available: Iterable[float], wanted: float | None) -> np.ndarray:
    values = np.asarray(available)
    return np.flatnonzero(np.isclose(values, wanted)) if wanted else np.arange(len(values))


def _xywh(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]

"""How well one mask fits another: IoU and Boundary IoU of run-length encoded masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

#: A pycocotools run-length encoded mask: {"size": [height, width], "counts": bytes}.
Rle = Mapping[str, Any]

BOUNDARY_RATIO = 0.02


@dataclass(frozen=True, slots=True)
class MaskQuality:
    """Agreement of a mask with the true one; both values lie in 0..1."""

    iou: float
    boundary_iou: float


def mask_quality(
    prediction: Rle, truth: Rle, *, dilation_ratio: float = BOUNDARY_RATIO
) -> MaskQuality:
    """IoU and Boundary IoU of two masks of one image.

    Boundary IoU follows Cheng et al., "Boundary IoU" (CVPR 2021): the IoU of the two bands of
    pixels that lie in a mask and within a distance of its contour. The distance is
    ``dilation_ratio`` of the image diagonal, rounded, at least one pixel; pixels outside the image
    count as outside the mask. Differs from the authors' code only in speed: it looks at the
    smallest rectangle that holds both masks, which gives the same numbers.

    Args:
        prediction: mask in run-length encoding, of the image's size.
        truth: likewise.
        dilation_ratio: band width as a part of the image diagonal.

    Returns:
        Both values; 0 where the two masks are empty.

    Raises:
        ValueError: the masks differ in size.
    """
    if list(prediction["size"]) != list(truth["size"]):
        raise ValueError(f"masks of sizes {prediction['size']} and {truth['size']} do not compare")
    height, width = truth["size"]
    first, second = _decode_crops(prediction, truth)
    distance = boundary_width(height, width, dilation_ratio)
    return MaskQuality(
        iou=_iou(first, second),
        boundary_iou=_iou(inner_boundary(first, distance), inner_boundary(second, distance)),
    )


def boundary_width(height: int, width: int, dilation_ratio: float = BOUNDARY_RATIO) -> int:
    """Width in pixels of the band that Boundary IoU compares, for an image of this size."""
    return max(1, round(dilation_ratio * hypot(height, width)))


def inner_boundary(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels of a mask that erosion with a 3x3 square, ``distance`` times over, would remove.

    Args:
        mask: (h, w) bool; what lies outside the array counts as outside the mask.
        distance: number of erosions, in pixels.

    Returns:
        (h, w) bool.
    """
    eroded = mask
    for _ in range(2):  # a square is separable: erode down the rows, turn, again, turn back
        eroded = _true_throughout_window(eroded, distance).T
    return mask & ~eroded


def filled_box(box: Sequence[float], height: int, width: int) -> dict[str, Any]:
    """The mask that fills a box, the floor for every mask made from boxes.

    A pixel belongs to it when its centre lies in the box; the box is clipped to the image.

    Args:
        box: xyxy in pixels, edges at integer coordinates (pixel i covers i..i+1).
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        Run-length encoded mask; empty when the box holds no pixel centre.
    """
    left, right = (min(max(ceil(x - 0.5), 0), width) for x in (box[0], box[2]))
    top, bottom = (min(max(ceil(y - 0.5), 0), height) for y in (box[1], box[3]))
    columns, rows = right - left, bottom - top
    if columns <= 0 or rows <= 0:
        counts = [height * width]
    else:
        counts = [left * height + top, rows]
        counts += [height - rows, rows] * (columns - 1)
        counts += [height * width - sum(counts)]
    rle: dict[str, Any] = mask_utils.frPyObjects(
        {"size": [height, width], "counts": counts}, height, width
    )
    return rle


def filled_ellipse(box: Sequence[float], height: int, width: int) -> dict[str, Any]:
    """The upright ellipse that touches a box's sides: a better guess than the box, as blind.

    A pixel belongs to it when its centre does. Arguments and result as of :func:`filled_box`.
    """
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    radius_x, radius_y = max(box[2] - box[0], 1e-9) / 2, max(box[3] - box[1], 1e-9) / 2
    away_x = (x - (box[0] + box[2]) / 2) / radius_x
    away_y = (y - (box[1] + box[3]) / 2) / radius_y
    inside = away_x**2 + away_y**2 < 1
    rle: dict[str, Any] = mask_utils.encode(np.asfortranarray(inside, np.uint8))
    return rle


def _decode_crops(*masks: Rle) -> tuple[NDArray[np.bool_], ...]:
    """The masks as bool arrays, transposed, cut to the rectangle that holds all of them."""
    corners = mask_utils.toBbox(list(masks)).astype(int)
    corners[:, 2:] += corners[:, :2]
    corners = corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)]
    if not len(corners):
        return tuple(np.zeros((0, 0), bool) for _ in masks)
    x0, y0 = corners[:, :2].min(axis=0)
    x1, y1 = corners[:, 2:].max(axis=0)
    # the encoding runs down the columns, so the transposed image is the contiguous one
    return tuple(mask_utils.decode(rle).T[x0:x1, y0:y1].astype(bool) for rle in masks)


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0


def _true_throughout_window(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Along axis 0: true where everything within ``radius`` is; the outside is false."""
    length, window = len(mask), 2 * radius + 1
    if length < window:
        return np.zeros(mask.shape, bool)
    runs, covered = np.ascontiguousarray(mask), 1
    while covered < window:  # doubling the covered run needs few passes even for wide bands
        step = min(covered, window - covered)
        runs = runs[:-step] & runs[step:]
        covered += step
    result = np.zeros(mask.shape, bool)
    result[radius : length - radius] = runs
    return result

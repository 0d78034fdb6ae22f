"""Box-relative masks back into the image, as pixels or as COCO run lengths.

Only the pixels within the box are computed: a mask of S x S becomes the box's region by two
small matrix products, and run lengths are read off that region directly. ``PasteRule`` says how
pixels meet mask cells.

``roi_align``: the mask's cells tile the box, as in ``deepmac.nn.roi_crop``; a pixel belongs to the
box when its centre does, and samples there, held at the outermost cell centres.

``corner_aligned``: the original's. Pixel j of a side of H samples the mask at
``(j / (H - 1) - start) / (end - start) * (S - 1)`` with the box normalised by the image, in
float32, and is zero where that falls outside [0, S - 1].
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from deepmac.nn.conventions import PasteRule


class Region(NamedTuple):
    """The pixels of a box that can belong to its mask; their values are ``wy @ mask @ wx.T``."""

    top: int
    left: int
    wy: NDArray[np.float32]
    mask: NDArray[np.float32]
    wx: NDArray[np.float32]

    @property
    def values(self) -> NDArray[np.float32]:
        """(h, w) probabilities."""
        values: NDArray[Any] = self.wy @ self.mask @ self.wx.T
        return values

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns within the image."""
        return (
            slice(self.top, self.top + len(self.wy)),
            slice(self.left, self.left + len(self.wx)),
        )


def paste_mask(
    probabilities: Tensor | ArrayLike,
    box: Tensor | ArrayLike,
    height: int,
    width: int,
    threshold: float = 0.5,
    rule: PasteRule = "roi_align",
) -> NDArray[np.bool_]:
    """The pixels of one object.

    Args:
        probabilities: (S, S) in [0, 1], the mask within its box.
        box: (4,) xyxy in pixels of the image, edges at integers; may lie partly outside. A box
            that holds no pixel centre gives an empty mask.
        height: of the image.
        width: of the image.
        threshold: a pixel belongs to the object above it.
        rule: see above.

    Returns:
        (height, width) bool.
    """
    return paste_masks(
        _array(probabilities)[None], _array(box)[None], height, width, threshold, rule
    )[0]


def paste_masks(
    probabilities: Tensor | ArrayLike,
    boxes: Tensor | ArrayLike,
    height: int,
    width: int,
    threshold: float = 0.5,
    rule: PasteRule = "roi_align",
) -> NDArray[np.bool_]:
    """``paste_mask`` for (N, S, S) probabilities and (N, 4) boxes: (N, height, width) bool."""
    count = len(_array(boxes))
    masks = np.zeros((count, height, width), dtype=np.bool_)
    regions = paste_regions(probabilities, boxes, height, width, rule, threshold)
    for mask, region in zip(masks, regions, strict=True):
        np.greater(region.values, threshold, out=mask[region.window])
    return masks


def masks_to_rles(
    probabilities: Tensor | ArrayLike,
    boxes: Tensor | ArrayLike,
    height: int,
    width: int,
    threshold: float = 0.5,
    rule: PasteRule = "roi_align",
) -> list[dict[str, Any]]:
    """``paste_masks`` as COCO run lengths, without ever making the full-size masks.

    Args:
        probabilities: (N, S, S) in [0, 1].
        boxes: (N, 4) xyxy in pixels of the image.
        height: of the image.
        width: of the image.
        threshold: a pixel belongs to the object above it.
        rule: see above.

    Returns:
        N dicts of ``size`` [height, width] and ``counts`` (compressed bytes), as pycocotools
        makes them.
    """
    runs = [
        {"size": [height, width], "counts": _run_lengths(region, threshold, height, width)}
        for region in paste_regions(probabilities, boxes, height, width, rule, threshold)
    ]
    rles: list[dict[str, Any]] = coco_mask.frPyObjects(runs, height, width) if runs else []
    return rles


def mask_to_rle(mask: Tensor | ArrayLike) -> dict[str, Any]:
    """COCO run lengths of one (height, width) mask; what is not zero belongs to the object."""
    pixels = np.asfortranarray(_array(mask) != 0, dtype=np.uint8)
    rle: dict[str, Any] = coco_mask.encode(pixels)
    return rle


def paste_regions(
    probabilities: Tensor | ArrayLike,
    boxes: Tensor | ArrayLike,
    height: int,
    width: int,
    rule: PasteRule,
    threshold: float | None = None,
) -> Iterator[Region]:
    """One at a time. What cannot be above ``threshold`` is left out before it is enlarged."""
    masks = _array(probabilities).astype(np.float32, copy=False)
    edges = _array(boxes).astype(np.float64)
    if masks.ndim != 3 or edges.shape != (len(masks), 4):
        raise ValueError(
            f"pasting needs masks (N, S, S) and boxes (N, 4), got {masks.shape} and {edges.shape}."
        )
    if rule not in ("roi_align", "corner_aligned"):
        raise ValueError(f"paste rule {rule!r} is unknown: use roi_align or corner_aligned.")
    positions = _pixel_centre_positions if rule == "roi_align" else _corner_aligned_positions
    for mask, (x_start, y_start, x_end, y_end) in zip(masks, edges.tolist(), strict=True):
        top, y = positions(y_start, y_end, height, mask.shape[0])
        left, x = positions(x_start, x_end, width, mask.shape[1])
        if threshold is not None:
            above = mask > threshold
            rows, columns = _within_reach(y, above.any(axis=1)), _within_reach(x, above.any(axis=0))
            top, y = top + rows.start, y[rows]
            left, x = left + columns.start, x[columns]
        wy, wx = _hat(y, mask.shape[0]), _hat(x, mask.shape[1])
        yield Region(top, left, wy, mask, wx)


def _within_reach(position: NDArray[np.float32], live: NDArray[np.bool_]) -> slice:
    """Of increasing positions, those that some live cell has weight on."""
    cells = np.flatnonzero(live)
    if not cells.size:
        return slice(0, 0)
    if len(position) > 1 and position[0] > position[-1]:  # an inverted box flips its mask
        return slice(0, len(position))
    first = np.searchsorted(position, cells[0] - 1, side="right")
    last = np.searchsorted(position, cells[-1] + 1, side="left")
    return slice(int(first), max(int(first), int(last)))


def _pixel_centre_positions(
    start: float, end: float, length: int, cells: int
) -> tuple[int, NDArray[np.float32]]:
    """The first pixel whose centre lies in [start, end), and where it and the next ones sample."""
    if not end > start:
        return 0, np.empty(0, dtype=np.float32)
    first = min(max(int(np.ceil(start - 0.5)), 0), length)
    last = min(max(int(np.ceil(end - 0.5)), first), length)
    centres = np.arange(first, last) + (0.5 - start)
    return first, np.clip(centres * (cells / (end - start)) - 0.5, 0, cells - 1).astype(np.float32)


def _corner_aligned_positions(
    start: float, end: float, length: int, cells: int
) -> tuple[int, NDArray[np.float32]]:
    """Likewise for the original's rule, rounding in the order in which it does."""
    low, high = np.float32(start / length), np.float32(end / length)
    if low == high:
        return 0, np.empty(0, dtype=np.float32)
    scale, one = np.float32(cells - 1), np.float32(1)
    # The image's first and last pixel in units of the box.
    first, last = -low / (high - low), (one - low) / (high - low)
    if length > 1:
        step = (last - first) * scale / np.float32(length - 1)
        position = first * scale + np.arange(length, dtype=np.float32) * step
    else:
        position = np.array([(first + last) / 2 * scale], dtype=np.float32)
    inside = np.flatnonzero((position >= 0) & (position <= scale))
    if not inside.size:
        return 0, np.empty(0, dtype=np.float32)
    return int(inside[0]), position[inside[0] : inside[-1] + 1]


def _hat(position: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """(n,) positions -> (n, cells) bilinear weights."""
    distance = position[:, None] - np.arange(cells, dtype=np.float32)
    np.abs(distance, out=distance)
    np.subtract(np.float32(1), distance, out=distance)
    return np.maximum(distance, np.float32(0), out=distance)


def _run_lengths(region: Region, threshold: float, height: int, width: int) -> NDArray[np.int64]:
    """Column-major run lengths, zeros first, of the image that has one region above threshold."""
    rows, columns = len(region.wy), len(region.wx)
    # Transposed, so that columns are contiguous; a frame of zeros closes every run in its column.
    framed = np.zeros((columns, rows + 2), dtype=np.bool_)
    values = region.wx @ region.mask.T @ region.wy.T
    np.greater(values, threshold, out=framed[:, 1:-1])
    flat = framed.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 2)
    position = (column + region.left) * height + row + region.top
    if rows == height and len(position) > 2:
        # A run that fills its column to the bottom goes on at the top of the next one.
        keep = np.ones(len(position), dtype=np.bool_)
        joined = position[1:-1:2] == position[2::2]
        keep[1:-1:2] = ~joined
        keep[2::2] = ~joined
        position = position[keep]
    runs = np.diff(position, prepend=0, append=height * width)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def _array(values: Tensor | ArrayLike) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values)

"""COCO segmentations: polygons, uncompressed and compressed RLE, checked before pycocotools."""

import math
from collections.abc import Sequence
from operator import mul
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Polygons = list[list[float]]
RawSegmentation = Polygons | dict[str, Any]
"""As in the annotation file; never empty (a box without a mask has None instead)."""


class Rle(TypedDict):
    """pycocotools' compressed run lengths: ``size`` is [height, width]."""

    size: list[int]
    counts: bytes


def segmentation_rle(segmentation: RawSegmentation, height: int, width: int) -> Rle:
    """The segmentation as compressed RLE with bytes counts; polygons are joined."""
    if isinstance(segmentation, list):
        rles: list[Rle] = coco_mask.frPyObjects(segmentation, height, width)
        rle: Rle = coco_mask.merge(rles) if len(rles) > 1 else rles[0]
        return rle
    counts = segmentation["counts"]
    if isinstance(counts, list):
        compressed: Rle = coco_mask.frPyObjects(segmentation, height, width)
        return compressed
    return {
        "size": [height, width],
        "counts": counts.encode("ascii") if isinstance(counts, str) else counts,
    }


def is_absent(segmentation: object) -> bool:
    """True for None, ``[]``, ``[[]]``, ``{}``: an object annotated by its box only."""
    return not segmentation or (isinstance(segmentation, list) and not any(segmentation))


def find_fault(segmentation: object, height: int, width: int) -> tuple[str, str] | None:
    """What makes a (not absent) segmentation unusable, as (kind, half a sentence), or None.

    pycocotools checks nothing and reads past its buffers on some of these, so every segmentation
    has to pass here before it is decoded.
    """
    if isinstance(segmentation, list):
        fault = _polygon_fault(segmentation, height, width)
        return ("malformed polygon", fault) if fault else None
    if not isinstance(segmentation, dict):
        kind = type(segmentation).__name__
        return "malformed segmentation", f"has a segmentation of type {kind}, not polygons or RLE"
    return _rle_fault(segmentation, height, width)


def is_empty(segmentation: RawSegmentation, height: int, width: int, *, exact: bool) -> bool:
    """True if the mask holds no pixel.

    Rasterising every polygon of a large set takes minutes. Without ``exact`` that is done only
    where it can be in doubt: polygons that are thin, small or reach out of the image.
    """
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        return not any(segmentation["counts"][1::2])
    if not exact and isinstance(segmentation, list) and _any_filled(segmentation, height, width):
        return False
    return not int(coco_mask.area(segmentation_rle(segmentation, height, width)))


def _polygon_fault(polygons: list[Any], height: int, width: int) -> str | None:
    reach = max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list):
            return "has a polygon that is not a list of numbers"
        if len(polygon) < 6 or len(polygon) % 2:
            return f"has a polygon of {len(polygon)} numbers, not an even count of 6 or more"
        try:
            finite = math.isfinite(sum(polygon))
        except (TypeError, OverflowError):
            return "has a polygon with something else than numbers"
        if not finite:
            return "has a polygon with NaN or infinite numbers"
        # pycocotools walks along every edge: far-away points would take all the memory.
        if min(polygon) < -reach or max(polygon) > 2 * reach:
            return (
                f"has a polygon that reaches from {min(polygon):g} to {max(polygon):g} "
                f"in an image of {width} x {height}"
            )
    return None


def _rle_fault(rle: dict[str, Any], height: int, width: int) -> tuple[str, str] | None:
    if "counts" not in rle or "size" not in rle:
        return "malformed RLE", "has an RLE without size and counts"
    if rle["size"] != [height, width]:
        return (
            "RLE of another size",
            f"has an RLE of size {rle['size']} but its image is [{height}, {width}] "
            "(height, width)",
        )
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = run_lengths(counts)
        if counts is None:
            return "malformed RLE", "has a compressed RLE with characters that cannot be decoded"
        total, smallest = int(counts.sum()), int(counts.min(initial=0))
    elif isinstance(counts, list):
        if not all(type(count) is int for count in counts):
            return "malformed RLE", "has RLE counts that are not integers"
        total, smallest = sum(counts), min(counts, default=0)
    else:
        return "malformed RLE", f"has RLE counts of type {type(counts).__name__}"
    if smallest < 0 or total != height * width:
        return (
            "malformed RLE",
            f"has RLE counts that cover {total} pixels of an image of {height * width}",
        )
    return None


def run_lengths(text: str) -> NDArray[np.int64] | None:
    """Run lengths of COCO's compressed string, None where it cannot be decoded."""
    data = text.encode() if text.isascii() else b""
    if not data or min(data) < 48 or max(data) > 111 or (data[-1] - 48) & 0x20:
        return None
    codes = np.frombuffer(data, dtype=np.uint8) - np.uint8(48)
    ends = np.flatnonzero((codes & 0x20) == 0)
    if np.diff(ends, prepend=-1).max() > 7:
        return None
    return run_lengths_of([data])[0]


def run_lengths_of(texts: Sequence[bytes]) -> list[NDArray[np.int64]]:
    """Run lengths of sound compressed strings, all at once.

    Numbers have 5 bits a character, the lowest first, and a sign; from the fourth run on they are
    differences to the run of the same colour before it.
    """
    digits = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64)
    digits -= 48
    last = np.flatnonzero((digits & 0x20) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & 0x1F) << (5 * place), first)
    values -= np.where(digits[last] & 0x10, np.int64(1) << (5 * lengths), 0)
    stops = np.searchsorted(last, np.cumsum([len(text) for text in texts]))
    runs = np.split(values, stops[:-1])
    for run in runs:
        np.cumsum(run[1::2], out=run[1::2])
        np.cumsum(run[2::2], out=run[2::2])
    return runs


def _any_filled(polygons: Polygons, height: int, width: int) -> bool:
    """True if some polygon lies in the image and is thick enough to be sure of a pixel."""
    for polygon in polygons:
        xs, ys = polygon[0::2], polygon[1::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        if left < -1 or top < -1 or right > width + 1 or bottom > height + 1:
            continue
        twice_area = sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))
        if abs(twice_area) > 8 + 4 * (right - left + bottom - top):
            return True
    return False

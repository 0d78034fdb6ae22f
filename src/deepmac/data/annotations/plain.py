"""The great mass of a COCO file, many annotations at once; whatever is odd is read carefully.

An annotation is plain when nothing about it can be a fault or a note: whole ids that are known, a
finite box inside its image, polygons of at least three finite points that surely hold a pixel and
agree with the box. All others go through ``CocoReader.read_annotation``, one by one.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.coco_reader import CocoReader
from deepmac.data.annotations.doubts import LEAST_OVERLAP, ROUNDED
from deepmac.data.annotations.json_file import PackedList
from deepmac.data.annotations.segmentation import is_empty
from deepmac.data.annotations.table import POLYGONS

_AT_ONCE = 1 << 13
_LARGEST_AREA = 1e300
_FULL = 0.99


class Irregular(Exception):
    """Ids that need a look at the whole file: read everything carefully."""


class _Plain(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | None = None
    area: float | None = None
    iscrowd: int | None = 0
    ignore: Any = None
    points: Any = None
    mask_source: Any = None
    mask_score: Any = None
    corners: Any = None


_decode = msgspec.json.Decoder(_Plain).decode


def read_plain(entries: PackedList, reader: CocoReader) -> None:
    """Read all annotations of a file whose image ids are whole numbers.

    Raises:
        Irregular: an annotation's id is none, is text, or occurs twice.
    """
    image_ids = np.array(sorted(reader.images), dtype=np.int64)
    images = [reader.images[identity] for identity in image_ids.tolist()]
    sizes = np.array([(i.width, i.height) for i in images], "f8").reshape(-1, 2)
    categories = np.array(sorted(reader.categories), dtype=np.int64)
    ids: list[NDArray[np.int64]] = []
    for start in range(0, len(entries), _AT_ONCE):
        plain: list[tuple[int, _Plain]] = []
        odd: list[int] = []
        for position, raw in enumerate(entries.raw[start : start + _AT_ONCE], start):
            try:
                plain.append((position, _decode(raw)))
            except (msgspec.MsgspecError, ValueError, RecursionError):
                odd.append(position)
        if plain:
            taken, rest = _take([p for _, p in plain], reader, image_ids, sizes, categories)
            ids.append(taken)
            odd += [plain[i][0] for i in rest]
        careful = []
        for position in sorted(odd):
            entry = entries[position]
            identity = entry.get("id") if isinstance(entry, dict) else None
            if type(identity) is not int or abs(identity) >= 1 << 63:
                raise Irregular
            careful.append(identity)
            reader.read_annotation(entry, position)
        ids.append(np.array(careful, dtype=np.int64))
    every = np.concatenate(ids or [np.zeros(0, np.int64)])
    if len(np.unique(every)) < len(every):
        raise Irregular


def _take(
    entries: list[_Plain],
    reader: CocoReader,
    image_ids: NDArray[np.int64],
    sizes: NDArray[np.float64],
    categories: NDArray[np.int64],
) -> tuple[NDArray[np.int64], list[int]]:
    """Put the plain ones into the table; returns their ids and the places of the others."""
    count = len(entries)
    everything = list(range(count))
    if not len(image_ids):
        return np.zeros(0, np.int64), everything
    try:
        keys = np.array([(e.id, e.image_id, e.category_id) for e in entries], "i8")
    except OverflowError:
        return np.zeros(0, np.int64), everything
    boxes = np.array([e.bbox for e in entries], "f8")
    area = np.array([np.nan if e.area is None else e.area for e in entries], "f8")
    good = np.array(
        [
            e.iscrowd == 0 and e.ignore is e.points is e.mask_source is None
            and e.mask_score is e.corners is None
            for e in entries
        ]
    )  # fmt: skip
    position = np.minimum(np.searchsorted(image_ids, keys[:, 1]), len(image_ids) - 1)
    good &= (image_ids[position] == keys[:, 1]) & np.isin(keys[:, 2], categories)
    size = np.tile(sizes[position], 2)
    with np.errstate(invalid="ignore", over="ignore"):
        raw = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        good &= np.isfinite(boxes).all(1) & np.isfinite(raw).all(1) & (boxes[:, 2:] > 0).all(1)
        box = np.clip(raw, 0, size)
        good &= (box[:, 2:] > box[:, :2]).all(1) & (abs(raw - box) <= 1).all(1)
        sides = box[:, 2:] - box[:, :2]
        good &= np.isnan(area) | ((area > 0) & (area <= _LARGEST_AREA))
        area = np.where(np.isnan(area), sides[:, 0] * sides[:, 1], area)
    rings = [[] if e.segmentation is None else e.segmentation for e in entries]
    masked = np.array([any(r) for r in rings])
    ring_count = np.array([len(r) if m else 0 for r, m in zip(rings, masked, strict=True)], "i8")
    parts = [r for r, m in zip(rings, masked, strict=True) if m]
    lengths = np.array([len(ring) for r in parts for ring in r], "i8")
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(parts)), "f8", int(lengths.sum()))
    owner = np.repeat(np.arange(count), ring_count)
    if len(lengths):
        sound, unsure = _sound(flat, lengths, owner, ring_count, box, size)
        good &= sound
        if reader.reading.exact_masks:
            unsure |= masked
        for row in np.flatnonzero(good & unsure).tolist():
            width, height = size[row, :2].astype(int).tolist()
            good[row] = not is_empty(rings[row], height, width, exact=True)
    rows = np.flatnonzero(good)
    kept = good[owner]
    first = 0
    if kept.any():
        flat = flat[np.repeat(kept, lengths)]
        first = reader.builder.extend_rings(lengths[kept], flat)
    own_rings = ring_count[rows]
    reader.builder.add_many(
        {
            "image_position": position[rows],
            "id": keys[rows, 0],
            "category_id": keys[rows, 2],
            "box": box[rows],
            "area": area[rows],
            "mask_kind": np.where(own_rings > 0, POLYGONS, 0),
            "ring_start": first + np.cumsum(own_rings) - own_rings,
            "ring_count": own_rings,
        }
    )
    for category_id, number in zip(*np.unique(keys[rows, 2], return_counts=True), strict=True):
        reader.count(int(category_id), False, int(number))
    return keys[rows, 0], np.flatnonzero(~good).tolist()


def _sound(
    flat: NDArray[np.float64],
    lengths: NDArray[np.int64],
    owner: NDArray[np.int64],
    ring_count: NDArray[np.int64],
    box: NDArray[np.float64],
    size: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(entries,) whether the polygons of each are beyond doubt, True where there are none; and
    whether they may hold no pixel."""
    count = len(box)
    good = np.ones(count, dtype=bool)
    good[owner[(lengths < 6) | (lengths % 2 == 1)]] = False
    # Odd lengths would shift x and y of all that follows.
    usable = good[owner]
    flat, lengths, owner = flat[np.repeat(usable, lengths)], lengths[usable], owner[usable]
    if not len(lengths):
        return good, np.zeros(count, dtype=bool)
    points = flat.reshape(-1, 2)
    starts = (np.cumsum(lengths) - lengths) // 2
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.minimum.reduceat(points, starts, axis=0)
        high = np.maximum.reduceat(points, starts, axis=0)
        following = np.roll(points, -1, axis=0)
        following[starts + lengths // 2 - 1] = points[starts]
        cross = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
        twice = abs(np.add.reduceat(cross, starts))
        reach = size[owner].max(axis=1)[:, None]
        # NaN makes every comparison False.
        near = (np.isfinite(low) & (low >= -reach) & (high <= 2 * reach)).all(1)
        inside = (low >= -1).all(1) & (high <= size[owner, :2] + 1).all(1)
        filled = inside & (twice > 8 + 4 * (high - low).sum(axis=1))
    good[owner[~near]] = False
    holds_pixels = np.bincount(owner, filled, count) > 0
    masked = np.bincount(owner, minlength=count) > 0
    first_ring = np.flatnonzero(np.diff(owner, prepend=-1))
    whose = owner[first_ring]
    own = np.zeros((count, 4))
    own[whose, :2] = np.minimum.reduceat(low, first_ring, axis=0)
    own[whose, 2:] = np.maximum.reduceat(high, first_ring, axis=0)
    own = np.clip(own, 0, size)
    both = np.maximum(
        np.minimum(own[:, 2:], box[:, 2:]) - np.maximum(own[:, :2], box[:, :2]), 0
    ).prod(axis=1)
    areas = (own[:, 2:] - own[:, :2]).prod(axis=1) + (box[:, 2:] - box[:, :2]).prod(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        agree = both / (areas - both) >= LEAST_OVERLAP
        # A rectangle that is the box has every vertex on one of the box's sides, and fills it.
        least = np.maximum(box[:, 2:] - box[:, :2] - 2 * ROUNDED, 0).prod(axis=1)
        fills = np.bincount(owner, twice, count) / 2 >= _FULL * least
        of_point = np.repeat(owner, lengths // 2)
        sides = box[of_point]
        off = np.minimum(abs(points - sides[:, :2]), abs(points - sides[:, 2:])).min(axis=1)
    on_sides = np.bincount(owner, np.maximum.reduceat(off, starts) <= ROUNDED, count) > 0
    maybe_its_box = (ring_count == 1) & on_sides & fills
    return good & (agree | ~masked) & ~(maybe_its_box & masked), masked & ~holds_pixels

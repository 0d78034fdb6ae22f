"""Objects of other pictures pasted onto a picture: Simple Copy-Paste (Ghiasi et al., CVPR 2021).

What is pasted is an object with a mask that a person drew, of a class whose masks supervise: what
it covers, and with which pixels, is then known exactly. It comes at another size, perhaps
mirrored, at any place, without blending, which the paper found to be of no use. All that it covers
is taken from the masks and boxes beneath.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision.transforms.v2 import functional as F

from deepmac.data.annotations.coco import CocoIndex, ImageRecord, Instance, decode_mask
from deepmac.data.annotations.table import NO_MASK
from deepmac.data.images import read_image

_SCALES = (0.5, 1.5)
"""Of a pasted object, relative to its size in a picture as large as this one."""
_EACH = 0.5
"""Probability that an object of the other picture is taken along with the first one."""
_LEAST_SIDE = 4
"""Pixels of a pasted object's box."""
_LEAST_LEFT = 0.1
"""Share of an object that has to stay visible; below it, the object is left out."""

Mask = NDArray[np.bool_]


class CopyPaste:
    """Draws from torch's generator: seeded as a sample is, it repeats.

    Args:
        index: the annotations.
        masked_category_ids: classes whose masks supervise.
        share: of the samples that are pasted onto.
    """

    def __init__(self, index: CocoIndex, masked_category_ids: frozenset[int], share: float) -> None:
        self.index = index
        self.masked_category_ids = masked_category_ids
        self.share = share
        table = index.table
        given = table.is_object & (table.mask_kind != NO_MASK) & (table.mask_source == 0)
        given &= np.isin(table.category_id, sorted(masked_category_ids))
        self.givers = np.unique(table.image_of_row[given])

    def __call__(
        self, record: ImageRecord, items: list[Instance], pixels: NDArray[np.uint8]
    ) -> tuple[list[Instance], NDArray[np.uint8]]:
        """A picture with more objects on it.

        Args:
            record: of the picture.
            items: its objects and crowd regions.
            pixels: (H, W, 3) uint8 RGB; stays as it is.

        Returns:
            What is left of the items, then what was pasted; and the new picture.
        """
        if not len(self.givers) or torch.rand(()).item() >= self.share:
            return items, pixels
        giver = self.index.images[int(self.givers[_below(len(self.givers))])]
        able = [item for item in giver.instances if self._can_be_pasted(item)]
        first = _below(len(able))
        chosen = [n for n in range(len(able)) if n == first or torch.rand(()).item() < _EACH]
        theirs = read_image(giver.path, (giver.width, giver.height))
        size = max(record.height, record.width) / max(giver.height, giver.width)
        pixels = pixels.copy()
        pasted: list[tuple[Instance, Mask]] = []
        for number in chosen:
            where = _paste(pixels, theirs, able[number], size)
            if where is not None:
                pasted.append((able[number], where))
        above = np.zeros(pixels.shape[:2], dtype=np.bool_)
        new: list[Instance] = []
        for item, where in reversed(pasted):  # the last one lies on top
            whole = _of_mask(item, where)
            left = uncovered(whole, above)
            new = ([] if left is None else [left]) + new
            above |= where
        kept = [left for item in items if (left := uncovered(item, above)) is not None]
        return [*kept, *new], pixels

    def _can_be_pasted(self, item: Instance) -> bool:
        masked = item.category_id in self.masked_category_ids
        return item.has_true_mask and masked and not item.iscrowd


def uncovered(item: Instance, above: Mask) -> Instance | None:
    """What stays visible of an object.

    A mask loses the pixels that are covered, and its box the rows and columns at its edges that it
    no longer reaches; a box without a mask, those that are covered from side to side.

    Args:
        item: an object or a crowd region.
        above: (H, W) what is covered.

    Returns:
        The very item where nothing of it is covered; None where less than a tenth is left.
    """
    x0, y0, x1, y1 = item.box
    rows, columns = slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1)))
    if not above[rows, columns].any():
        return item
    if item.segmentation is None:
        before = np.zeros_like(above)
        before[rows, columns] = True
    else:
        before = decode_mask(item, *above.shape).astype(np.bool_)
        if not (before & above).any():
            return item
    after = before & ~above
    if after.sum() < _LEAST_LEFT * before.sum() or not after.any():
        return None
    tight, left = _bounds(before), _bounds(after)
    moved = zip(item.box, tight, left, strict=True)
    x0, y0, x1, y1 = (own if now == was else float(now) for own, was, now in moved)
    return replace(
        item,
        box=(x0, y0, x1, y1),
        segmentation=None if item.segmentation is None else _rle(after),
        area=item.area if item.segmentation is None else float(after.sum()),
        points=tuple(p for p in item.points if not (p[2] and _covers(above, p[0], p[1]))),
        corners=None,
    )


def _paste(
    pixels: NDArray[np.uint8], theirs: NDArray[np.uint8], item: Instance, size: float
) -> Mask | None:
    """Put one object of another picture somewhere; the pixels that it takes, None for none."""
    mask = decode_mask(item, *theirs.shape[:2]).astype(np.bool_)
    left, top, right, bottom = _bounds(mask)
    cut = torch.from_numpy(theirs[top:bottom, left:right]).permute(2, 0, 1)
    shape = torch.from_numpy(mask[top:bottom, left:right])[None].float()
    scale = size * (_SCALES[0] + (_SCALES[1] - _SCALES[0]) * torch.rand(()).item())
    sides = [max(_LEAST_SIDE, round(side * scale)) for side in (bottom - top, right - left)]
    sides = [min(side, 2 * room) for side, room in zip(sides, pixels.shape, strict=False)]
    cut = F.resize(cut, sides, antialias=True)
    shape = F.resize(shape, sides, antialias=True)
    if torch.rand(()).item() < 0.5:
        cut, shape = cut.flip(-1), shape.flip(-1)
    seen = shape[0].numpy() > 0.5
    # Anywhere within the picture; what is larger than it lies over its edges.
    starts = []
    for side, room in zip(sides, pixels.shape, strict=False):
        low, high = sorted((0, room - side))
        starts.append(low + _below(high - low + 1))
    (y, x), (height, width) = starts, pixels.shape[:2]
    into = slice(max(0, y), min(height, y + sides[0])), slice(max(0, x), min(width, x + sides[1]))
    part = (
        slice(into[0].start - y, into[0].stop - y),
        slice(into[1].start - x, into[1].stop - x),
    )
    seen = seen[part]
    if not seen.any():
        return None
    pixels[into][seen] = cut.permute(1, 2, 0).numpy()[part][seen]
    where = np.zeros((height, width), dtype=np.bool_)
    where[into] = seen
    return where


def _of_mask(item: Instance, where: Mask) -> Instance:
    """An object at another place."""
    left, top, right, bottom = _bounds(where)
    box = float(left), float(top), float(right), float(bottom)
    area = float(where.sum())
    return replace(item, box=box, segmentation=_rle(where), area=area, points=(), corners=None)


def _rle(mask: Mask) -> dict[str, Any]:
    rle: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    """xyxy of the pixels of a mask that has some."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _covers(above: Mask, x: float, y: float) -> bool:
    height, width = above.shape
    return bool(above[min(int(y), height - 1), min(int(x), width - 1)])


def _below(count: int) -> int:
    """An even draw from 0 up to a count."""
    return int(torch.randint(count, ()).item())

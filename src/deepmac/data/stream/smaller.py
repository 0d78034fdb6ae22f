"""A picture and its annotations at a smaller size."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.records import ImageRecord, Instance, decode_mask


def smaller(
    record: ImageRecord, pixels: NDArray[np.uint8], side: int, quality: int
) -> tuple[ImageRecord, bytes]:
    """Scale a picture so that its longer side has ``side`` pixels, and encode it as JPEG.

    Boxes, outlines and points are scaled as numbers; run lengths are drawn anew, each pixel as the
    nearest of the old ones.

    Args:
        record: the image.
        pixels: (H, W, 3) uint8, of the size that the record says.
        side: pixels, below the longer side.
        quality: of the JPEG, with full colour resolution.
    """
    factor = side / max(record.width, record.height)
    width = max(1, round(record.width * factor))
    height = max(1, round(record.height * factor))
    file = io.BytesIO()
    shown = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    shown.save(file, "JPEG", quality=quality, subsampling=0)
    across, down = width / record.width, height / record.height
    instances = tuple(
        _scaled(item, across, down, (record.height, record.width), (height, width))
        for item in record.instances
    )
    return replace(record, width=width, height=height, instances=instances), file.getvalue()


def _scaled(
    item: Instance, across: float, down: float, old: tuple[int, int], new: tuple[int, int]
) -> Instance:
    turns = (across, down, across, down)
    raw = item.segmentation
    if isinstance(raw, list):
        raw = [[v * turns[n % 2] for n, v in enumerate(ring)] for ring in raw]
    elif raw is not None:
        mask = decode_mask(item, *old)
        rows = ((np.arange(new[0]) + 0.5) / down).astype(int).clip(0, old[0] - 1)
        columns = ((np.arange(new[1]) + 0.5) / across).astype(int).clip(0, old[1] - 1)
        rle = coco_mask.encode(np.asfortranarray(mask[np.ix_(rows, columns)]))
        raw = {"size": list(new), "counts": rle["counts"].decode("ascii")}
    corners = item.corners
    if corners is not None:
        corners = tuple(v * turns[n % 2] for n, v in enumerate(corners))
    left, top, right, bottom = (v * by for v, by in zip(item.box, turns, strict=True))
    return replace(
        item,
        box=(left, top, right, bottom),
        segmentation=raw,
        area=item.area * across * down,
        points=tuple((x * across, y * down, label) for x, y, label in item.points),
        corners=corners,
    )

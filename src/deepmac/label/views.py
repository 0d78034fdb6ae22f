"""Where the network looks for the masks of a picture: at all of it, at tiles, at turned boxes.

A network sees a square of a few hundred pixels. In a large picture small objects are gone before it
looks; tiles show it their surroundings at full size. A tile is chosen for the boxes, not the boxes
for a tile: each box lies in its tile as a whole, with surroundings, and boxes too large for a
tile are looked at in a coarser one, at last in the whole picture. So no mask meets a seam.

A turned box is put upright: its surroundings, turned, are what the network sees.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepmac.label.plan import ImageTask
from deepmac.predict.points import Points

Boxes = NDArray[np.float64]
Pixels = NDArray[np.uint8]

_CONTEXT = 0.25  # of a box's longer side, on each side of it within its tile
_LEAST_CONTEXT = 1 / 16  # of the tile's side
_AROUND_TURNED = 3.0  # side of what is shown of a turned box, in its longer sides


class View(NamedTuple):
    """A part of a picture, and the boxes that are looked at there.

    Attributes:
        task: the picture with those boxes alone.
        window: (left, top, right, bottom) in its pixels; for a turned box what its centre and size
            ask for, which may reach out of the picture.
    """

    task: ImageTask
    window: tuple[int, int, int, int]


def views_of(
    task: ImageTask, image_size: int, *, tiles: bool = False, margin: float = 0.0
) -> list[View]:
    """The views that hold all boxes of a picture, each box in one of them.

    Args:
        task: the picture.
        image_size: side of the network's input, pixels.
        tiles: look at tiles down to that side.
        margin: beyond the boxes, as a share of their sides, that has to lie in the view too.
    """
    whole = (0, 0, *task.size)
    turned = np.flatnonzero(task.degrees)
    upright = np.flatnonzero(task.degrees == 0)
    views = []
    if len(upright):
        rest = task.some(upright) if len(turned) else task
        if tiles and max(task.size) > image_size:
            views += _tiles(rest, image_size, max(_CONTEXT, margin))
        else:
            views.append(View(rest, whole))
    views += [_turned(task.some(turned[n : n + 1]), image_size) for n in range(len(turned))]
    return views


def cut(view: View, pixels: Pixels) -> Pixels:
    """The pixels of an upright view."""
    left, top, right, bottom = view.window
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def put_upright(
    view: View, pixels: Pixels, boxes: Boxes, image_size: int
) -> tuple[Pixels, Boxes, Points]:
    """What the network sees of a turned box.

    Args:
        view: of it.
        pixels: of the picture.
        boxes: (1, 4) xyxy, the box with its margin before it is turned.
        image_size: side S of the network's input.

    Returns:
        (S, S, 3) uint8, black beyond the picture; the (1, 4) xyxy box in it; and its clicks.
    """
    left, top, right, _ = view.window
    scale = image_size / (right - left) * math.sqrt(2)
    side = round((right - left) * scale)
    canvas = Image.new("RGB", (side, side))
    height, width = pixels.shape[:2]
    x0, x1 = _inside(left, width, scale, side)
    y0, y1 = _inside(top, height, scale, side)
    if x1 > x0 and y1 > y0:
        source = (left + x0 / scale, top + y0 / scale, left + x1 / scale, top + y1 / scale)
        limits = (width, height, width, height)
        a, b, c, d = np.clip(source, 0, limits).tolist()
        part = Image.fromarray(pixels).resize(
            (x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=(a, b, c, d)
        )
        canvas.paste(part, (x0, y0))
    x_start, y_start, x_end, y_end = boxes[0]
    centre = ((x_start + x_end) / 2 - left) * scale, ((y_start + y_end) / 2 - top) * scale
    degrees = float(view.task.degrees[0])
    turned = canvas.rotate(degrees, Image.Resampling.BILINEAR, center=centre)
    x, y = (round(value - image_size / 2) for value in centre)
    shown = np.array(turned.crop((x, y, x + image_size, y + image_size)))
    half = np.array([x_end - x_start, y_end - y_start]) / 2 * scale
    middle = np.array(centre) - (x, y)
    turn = math.radians(degrees)
    across, down = np.moveaxis(view.task.points[..., :2] - _centre(boxes), -1, 0) * scale
    points = view.task.points.copy()
    points[..., 0] = middle[0] + math.cos(turn) * across + math.sin(turn) * down
    points[..., 1] = middle[1] - math.sin(turn) * across + math.cos(turn) * down
    return shown, np.concatenate([middle - half, middle + half])[None], points


def _centre(boxes: Boxes) -> NDArray[np.float64]:
    """(x, y) of the first one."""
    centre: NDArray[np.float64] = (boxes[0, :2] + boxes[0, 2:]) / 2
    return centre


def _inside(start: int, length: int, scale: float, side: int) -> tuple[int, int]:
    """The cells of a canvas that begins at ``start`` which lie within a picture."""
    first = max(0, math.ceil(-start * scale))
    return first, min(side, math.floor((length - start) * scale))


def _turned(task: ImageTask, image_size: int) -> View:
    x_start, y_start, x_end, y_end = task.boxes[0]
    longer = max(x_end - x_start, y_end - y_start)
    side = min(max(_AROUND_TURNED * longer, image_size / 2), 2.0 * max(task.size))
    half = max(side, longer) / math.sqrt(2)  # what is turned has to hold the square that is cut
    x, y = (x_start + x_end) / 2, (y_start + y_end) / 2
    left, top = math.floor(x - half), math.floor(y - half)
    whole = math.ceil(2 * half)
    return View(task, (left, top, left + whole, top + whole))


def _tiles(task: ImageTask, finest: int, context: float) -> list[View]:
    sides = [float(max(task.size))]
    while sides[-1] / 2 > finest:
        sides.append(sides[-1] / 2)
    sides.append(float(finest))
    limits = np.tile(np.array(task.size, dtype=np.float64), 2)
    longer = (task.boxes[:, 2:] - task.boxes[:, :2]).max(axis=1)
    level_of = np.zeros(len(longer), dtype=np.int64)
    for level, side in enumerate(sides[1:], start=1):
        margin = np.maximum(context * longer, _LEAST_CONTEXT * side)
        level_of[longer + 2 * margin <= side / 2] = level
    views = []
    for level in np.unique(level_of).tolist():
        rows = np.flatnonzero(level_of == level)
        if level == 0:
            views.append(View(task.some(rows), (0, 0, *task.size)))
            continue
        side = sides[level]
        margin = np.maximum(context * longer[rows], _LEAST_CONTEXT * side)[:, None]
        grown = task.boxes[rows] + np.concatenate([-margin, -margin, margin, margin], axis=1)
        views += _cover(task, rows, np.clip(grown, 0, limits), side)
    return views


def _cover(task: ImageTask, rows: NDArray[np.int64], boxes: Boxes, side: float) -> list[View]:
    """Few tiles of a grid, overlapping by half, that hold all boxes; the fullest ones first."""
    holding: dict[tuple[int, int], list[int]] = defaultdict(list)
    half = side / 2
    for n, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        for row in (int(y0 // half) - 1, int(y0 // half)):
            for column in (int(x0 // half) - 1, int(x0 // half)):
                fits = (column + 2) * half >= x1 and (row + 2) * half >= y1
                if min(row, column) >= 0 and fits:
                    holding[row, column].append(n)
    left = set(range(len(boxes)))
    views = []
    while left:
        place = max(sorted(holding), key=lambda key: len(holding[key]))
        taken = [n for n in holding.pop(place) if n in left]
        left -= set(taken)
        for key in list(holding):
            holding[key] = [n for n in holding[key] if n in left]
            if not holding[key]:
                del holding[key]
        views.append(View(task.some(rows[taken]), _window(task.size, *place, side)))
    return views


def _window(size: tuple[int, int], row: int, column: int, side: float) -> tuple[int, int, int, int]:
    """The tile's pixels, moved back into the picture where it would reach out of it."""
    edges = []
    for start, length in ((column, size[0]), (row, size[1])):
        last = min(length, math.ceil((start + 2) * side / 2))  # a fraction of a pixel counts
        first = max(0, min(math.floor(start * side / 2), last - math.ceil(side)))
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom

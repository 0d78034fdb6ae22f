"""The masks that tell most of a model: those that meet the truth worst and best."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.class_map import ClassMap
from deepmac.data.annotations.records import ImageRecord, Instance, instance_rle
from deepmac.data.images import ImageFileError, read_picture
from deepmac.drawing import class_color, draw_instances
from deepmac.report.run_folder import data_url

_EACH = 8  # worst and best ones
_MOST = 5000  # objects that are looked at: enough to find telling ones
_SMALLEST = 24  # pixels: the shorter side of a box on which something can be seen
_SIDE, _MARGIN = 220, 0.25  # pixels of a picture; of the box's longer side around it

Case = tuple[float, int, ImageRecord, Instance, Mapping[str, Any]]


class Cases:
    """Collects masks made in true boxes, and keeps the few that meet the truth worst and best."""

    def __init__(self) -> None:
        self._seen = 0
        self._worst: list[Case] = []  # heaps; the number in second place keeps records apart
        self._best: list[Case] = []

    def add(self, image: ImageRecord, masks: Mapping[int, Mapping[str, Any]]) -> None:
        """Take an image's masks, by annotation id."""
        objects = [
            one
            for one in image.instances
            if one.segmentation is not None and not one.iscrowd and one.id in masks
            and min(one.box[2] - one.box[0], one.box[3] - one.box[1]) >= _SMALLEST
        ]  # fmt: skip
        if not objects or self._seen >= _MOST:
            return
        truth = [dict(instance_rle(one, image.height, image.width)) for one in objects]
        made = [dict(masks[one.id]) for one in objects]
        values = np.diag(coco_mask.iou(made, truth, [0] * len(truth))).tolist()
        for one, mask, value in zip(objects, made, values, strict=True):
            self._seen += 1
            for heap, key in ((self._worst, -value), (self._best, value)):
                case = (key, self._seen, image, one, mask)
                (heapq.heappush if len(heap) < _EACH else heapq.heappushpop)(heap, case)

    def draw(self, class_map: ClassMap) -> list[dict[str, Any]]:
        """Worst first, then best first: ``kind``, ``iou``, ``label``, ``image``, ``picture``."""
        found = []
        for kind, heap in (("worst", self._worst), ("best", self._best)):
            for key, _, image, one, mask in sorted(heap, key=lambda case: -case[0]):
                try:
                    pixels = read_picture(image)
                except ImageFileError:  # gone meanwhile: the page is a help, not the product
                    continue
                slot = class_map.label_of[one.category_id]
                seen = one.category_id in class_map.masked_category_ids
                found.append(
                    {
                        "kind": kind,
                        "iou": round(abs(key), 4),
                        "label": f"{class_map.names[slot]} ({'seen' if seen else 'unseen'})",
                        "image": image.file_name,
                        "picture": data_url(_side_by_side(pixels, image, one, mask, slot, seen)),
                    }
                )
        return found


def _side_by_side(
    pixels: Any, image: ImageRecord, one: Instance, mask: Mapping[str, Any], slot: int, seen: bool
) -> Image.Image:
    x0, y0, x1, y1 = one.box
    reach = max(x1 - x0, y1 - y0) * (0.5 + _MARGIN)
    left, top = (int(max(0, v - reach)) for v in ((x0 + x1) / 2, (y0 + y1) / 2))
    right = int(min(image.width, (x0 + x1) / 2 + reach)) + 1
    bottom = int(min(image.height, (y0 + y1) / 2 + reach)) + 1
    window = slice(top, bottom), slice(left, right)
    crop = Image.fromarray(pixels[window])
    scale = _SIDE / max(crop.size)
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    truth = instance_rle(one, image.height, image.width)
    both = Image.new("RGB", (2 * _SIDE + 6, _SIDE), (128, 128, 128))
    for number, rle in enumerate((truth, mask)):
        shape = Image.fromarray(coco_mask.decode(dict(rle))[window] * np.uint8(255)).resize(size)
        drawn = draw_instances(
            np.asarray(crop.resize(size)),
            boxes=[(np.asarray(one.box) - [left, top, left, top]) * scale],
            masks=[np.asarray(shape) > 127],
            colors=[class_color(slot)],
            dashed=[not seen],
        )
        place = number * (_SIDE + 6) + (_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2
        both.paste(Image.fromarray(drawn), place)
    return both

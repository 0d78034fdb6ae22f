"""COCO AP of masks, by the library that is chosen and by pycocotools, with equal numbers."""

from __future__ import annotations

import time

import numpy as np
from pycocotools import mask as coco_mask

from benchmarks.table import Row
from deepmac.evaluation.average_precision import (
    average_precision_by_class,
    detection_entry,
    load_backend,
    truth_entry,
)

HEIGHT, WIDTH = 480, 640


def rows(quick: bool) -> list[Row]:
    """5,000 images with 7 objects and 100 detections each; once with each library."""
    images, found = (20, 20) if quick else (5000, 100)
    truths, detections = _entries(images, found)
    ids = tuple(range(1, 81))
    common = {
        "image_sizes": {n: (HEIGHT, WIDTH) for n in range(1, images + 1)},
        "category_ids": ids,
        "truths": truths,
        "detections": detections,
    }
    spent, numbers = [], []
    for backend in ("auto", "pycocotools"):
        started = time.perf_counter()
        numbers.append(average_precision_by_class("segm", backend=backend, **common))  # type: ignore[arg-type]
        spent.append(time.perf_counter() - started)
    if numbers[0] != numbers[1]:
        raise AssertionError("the two libraries differ in their numbers")
    name = load_backend("auto")[1].__module__.split(".")[0]
    how = f"{images} images, {len(detections)} detections, 80 classes; {name}, equal numbers; once"
    return [Row("mask AP", "s", spent[0], "pycocotools", spent[1], 4.0, how)]


def _entries(images: int, found: int) -> tuple[list[dict], list[dict]]:  # type: ignore[type-arg]
    """Ellipses from a stock of shapes, and detections of them that are a little off."""
    random = np.random.default_rng(0)
    stock = []
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(400):
        w, h = np.exp(random.uniform(2.5, 5.3, 2))
        left, top = random.uniform(0, WIDTH - w), random.uniform(0, HEIGHT - h)
        inside = ((x - left - w / 2) / w) ** 2 + ((y - top - h / 2) / h) ** 2 < 0.25
        rle = coco_mask.encode(np.asfortranarray(inside, np.uint8))
        area = float(coco_mask.area(rle))
        stock.append(((left, top, left + w, top + h), area, rle))
    truths, detections = [], []
    for image in range(1, images + 1):
        for kind in random.integers(0, 400, 7):
            box, area, rle = stock[kind]
            crowd = bool(random.random() < 0.02)
            truths.append(
                truth_entry(image, int(kind) % 80 + 1, box, area=area, ignore=crowd, mask=rle)
            )
        for kind in random.integers(0, 400, found):
            box, area, rle = stock[kind]
            score = float(np.round(random.random(), 3))  # with ties
            detections.append(
                detection_entry(image, int(kind) % 80 + 1, score, box, area=area, mask=rle)
            )
    return truths, detections

"""Masks that the page holds, as files: palette PNGs and a folder for YOLO."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.segmentation import find_fault, is_absent, segmentation_rle
from deepmac.demo.answers import text_of
from deepmac.drawing import class_color
from deepmac.errors import UserError
from deepmac.label.masks.polygons import joined, mask_polygons

_MAX_PIXELS = 100_000_000
_PALETTE = 255  # a palette PNG tells as many masks apart


def checked_rles(value: Mapping[str, Any]) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """The size of a picture and the run lengths of its masks, out of parsed JSON.

    Args:
        value: with ``width``, ``height`` and ``segmentations``: COCO's, polygons or run lengths.

    Returns:
        (height, width), and pycocotools' run lengths.

    Raises:
        UserError: a size that no picture has, or a segmentation that cannot be read.
    """
    width, height = value.get("width"), value.get("height")
    if not (
        type(width) is int
        and type(height) is int
        and min(width, height) > 0
        and width * height <= _MAX_PIXELS
    ):
        raise UserError("A picture has a width and a height in pixels.")
    raw = value.get("segmentations")
    if not isinstance(raw, list):
        raise UserError("There is no list of masks.")
    rles: list[dict[str, Any]] = []
    for number, one in enumerate(raw, start=1):
        if is_absent(one):
            one = {"size": [height, width], "counts": [width * height]}
        fault = find_fault(one, height, width)
        if fault:
            raise UserError(f"Mask {number} of the picture {fault[1]}.")
        rles.append(dict(segmentation_rle(one, height, width)))
    return (height, width), rles


def index_png(size: tuple[int, int], rles: list[dict[str, Any]]) -> bytes:
    """A picture of numbers: 0 is background, k the k-th mask; of two the later one is on top.

    Up to 255 masks it has a palette, beyond that 16 bits.

    Args:
        size: (height, width).
        rles: run lengths.
    """
    few = len(rles) <= _PALETTE
    pixels = np.zeros(size, dtype=np.uint8 if few else np.uint16)
    for number, rle in enumerate(rles, start=1):
        pixels[coco_mask.decode(rle) > 0] = number
    image = Image.fromarray(pixels)
    if few:
        image = image.convert("P")
        colors = [(0, 0, 0), *(class_color(n) for n in range(_PALETTE))]
        image.putpalette([int(value) for color in colors for value in color])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=False)
    return file.getvalue()


def masks_zip(pictures: list[Mapping[str, Any]]) -> bytes:
    """``NAME.png`` of every picture (see :func:`index_png`)."""
    return _zip({f"{name}.png": index_png(*checked_rles(one)) for name, one in _named(pictures)})


def yolo_zip(pictures: list[Mapping[str, Any]], classes: list[Any]) -> bytes:
    """``labels/NAME.txt``, a line of class and outline for every mask, and ``data.yaml``.

    Outlines are relative to the picture.

    Args:
        pictures: see :func:`checked_rles`; each with ``file_name`` and ``classes``, the class
            number of every mask.
        classes: names.
    """
    files: dict[str, bytes] = {}
    for name, one in _named(pictures):
        (height, width), rles = checked_rles(one)
        numbers = one.get("classes")
        if not isinstance(numbers, list) or len(numbers) != len(rles):
            raise UserError("Every mask needs a class.")
        lines = []
        for number, rle in zip(numbers, rles, strict=True):
            if type(number) is not int or not 0 <= number < len(classes):
                raise UserError("A class number has no name.")
            rings = mask_polygons(rle)
            if rings:
                relative = np.clip(joined(rings) / (width, height), 0, 1)
                lines.append(f"{number} {' '.join(f'{v:.6f}' for v in relative.ravel())}\n")
        files[f"labels/{name}.txt"] = "".join(lines).encode()
    described = {"path": ".", "names": {n: text_of(name) for n, name in enumerate(classes)}}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    return _zip({"data.yaml": text.encode(), **files})


def _named(pictures: list[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each picture with a name for its file that no other one has."""
    taken: set[str] = set()
    named = []
    for one in pictures:
        path = PurePosixPath(text_of(one.get("file_name", "")).replace("\\", "/"))
        parts = [part for part in path.parts if part not in ("/", "..", ".")]
        stem = name = str(PurePosixPath(*parts).with_suffix("")) if parts else "picture"
        number = 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name)
        named.append((name, one))
    return named


def _zip(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()

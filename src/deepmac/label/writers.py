"""The output in each format; everything is written beside its place and renamed at the end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.segmentation import find_fault, is_absent, segmentation_rle
from deepmac.errors import DataError
from deepmac.label.masks.polygons import Ring, joined, mask_polygons
from deepmac.label.masks.records import SCORE_DECIMALS
from deepmac.label.merge import Labelled

Scores = Callable[[float], float]
"""From a raw score to the one that is written."""

FILE_FORMATS = ("coco", "coco-polygons", "coco-results")
FOLDER_FORMATS = ("yolo-seg", "png")
FORMATS = FILE_FORMATS + FOLDER_FORMATS


def write_file(
    file: IO[str], labelled: Labelled, form: str, score: Scores, note: dict[str, Any], tighten: bool
) -> None:
    """Write one of ``FILE_FORMATS``.

    ``coco`` and ``coco-polygons`` are the input with ``segmentation``, ``area`` and ``mask_score``
    added to the annotations that got a mask, ``bbox`` tightened where ``tighten``, the size added
    to images that lack it, and ``note`` under ``deepmac_label``; all else, order included, is the
    input's. ``coco-results`` is the list that ``COCO.loadRes`` reads, of our masks alone: ``score``
    is the input's own where it has one (also MegaDetector's ``conf``), else the mask's.
    """
    if form == "coco-results":
        _write_list(file, _results(labelled, score, tighten))
        return
    content, sizes = labelled.plan.boxes.content, labelled.sizes()
    file.write("{")
    separator = "\n"
    for key, value in [
        *((k, v) for k, v in content.items() if k != "deepmac_label"),
        ("deepmac_label", note),
    ]:
        file.write(f"{separator}{json.dumps(key)}:")
        separator = ",\n"
        if key == "annotations":
            _write_list(file, _annotations(labelled, form, score, tighten))
        elif key == "images":
            images = (_with_size(image, sizes.get(n)) for n, image in enumerate(value))
            _write_list(file, images)
        else:
            file.write(_dump(value))
    file.write("\n}\n")


def write_folder(folder: Path, labelled: Labelled, form: str, score: Scores) -> dict[str, int]:
    """Write one of ``FOLDER_FORMATS`` into an empty folder; returns counts of what has no place.

    ``yolo-seg``: ``labels/IMAGE.txt``, a line for each object, its class and one outline relative
    to the picture, parts and holes linked by seams of no width; ``data.yaml`` with the names.
    Class numbers are the positions of the sorted category ids. ``png``: ``IMAGE/ANNOTATION.png``,
    0 and 255, and ``index.csv``. Masks that people drew are written too.
    """
    return (
        _write_yolo(folder, labelled) if form == "yolo-seg" else _write_png(folder, labelled, score)
    )


def _annotations(
    labelled: Labelled, form: str, score: Scores, tighten: bool
) -> Iterator[dict[str, Any]]:
    for _, entry, record in labelled.annotations():
        if record is None:
            yield entry
            continue
        made = dict(entry)
        made["segmentation"] = record["polygons"] if form == "coco-polygons" else record["rle"]
        made["area"] = record["area"]
        made.setdefault("iscrowd", 0)
        if tighten:
            made["bbox"] = record["tight"]
        made["mask_score"] = round(score(record["raw"]), SCORE_DECIMALS)
        yield made


def _results(labelled: Labelled, score: Scores, tighten: bool) -> Iterator[dict[str, Any]]:
    for _, entry, record in labelled.annotations():
        if record is not None:
            mask_score = round(score(record["raw"]), SCORE_DECIMALS)
            yield {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": record["tight"] if tighten else entry["bbox"],
                "score": entry.get("score", entry.get("conf", mask_score)),
                "segmentation": record["rle"],
                "mask_score": mask_score,
                "annotation_id": entry["id"],
            }


def _write_yolo(folder: Path, labelled: Labelled) -> dict[str, int]:
    categories = [c for c in labelled.plan.boxes.content["categories"] if isinstance(c, dict)]
    categories.sort(key=lambda c: (isinstance(c.get("id"), str), c.get("id")))
    number_of = {category.get("id"): n for n, category in enumerate(categories)}
    names = _names(labelled, "labels")
    record, left_out = labelled.reader(), 0
    for image, size, rows in labelled.by_image():
        lines = []
        for row in rows:
            entry = labelled.plan.boxes.content["annotations"][row]
            ring = _outline(entry, record(row), size)
            if ring is None or size is None:
                left_out += 1
                continue
            relative = np.clip(ring / size, 0, 1)
            points = " ".join(f"{value:.6f}" for value in relative.ravel())
            lines.append(f"{number_of[entry['category_id']]} {points}\n")
        path = folder / f"{names[image['id']]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    described = {"names": {n: str(c.get("name", c.get("id"))) for n, c in enumerate(categories)}}
    text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return {"objects without a mask, left out": left_out} if left_out else {}


def _outline(
    entry: dict[str, Any], record: dict[str, Any] | None, size: tuple[int, int] | None
) -> Ring | None:
    """One polygon for an object, or None where it has no mask."""
    if record is not None:
        rings = [np.array(ring).reshape(-1, 2) for ring in record["polygons"]]
    else:
        rle = _human_mask(entry, size)
        raw = entry.get("segmentation") if rle is not None else None
        if isinstance(raw, list) and len(raw) == 1:
            return np.array(raw[0], dtype=np.float64).reshape(-1, 2)
        rings = mask_polygons(rle) if rle is not None else []
    return joined(rings) if rings else None


def _write_png(folder: Path, labelled: Labelled, score: Scores) -> dict[str, int]:
    names = _names(labelled)
    record, left_out = labelled.reader(), 0
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "image", "annotation_id", "category_id", "mask_score", "origin"])
        for image, size, rows in labelled.by_image():
            for row in rows:
                entry, found = labelled.plan.boxes.content["annotations"][row], record(row)
                rle = found["rle"] if found else _human_mask(entry, size)
                if rle is None:
                    left_out += 1
                    continue
                name = f"{names[image['id']]}/{_safe(str(entry['id']))}.png"
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = coco_mask.decode(rle) * np.uint8(255)
                Image.fromarray(pixels).convert("1", dither=Image.Dither.NONE).save(path)
                value = round(score(found["raw"]), SCORE_DECIMALS) if found else ""
                origin = "model" if found else "human"
                table.writerow(
                    [name, image["file_name"], entry["id"], entry["category_id"], value, origin]
                )
    return {"objects without a mask, left out": left_out} if left_out else {}


def _human_mask(entry: Any, size: tuple[int, int] | None) -> Mapping[str, Any] | None:
    """The annotation's own mask, where it can be read and is of one object."""
    raw = entry.get("segmentation") if isinstance(entry, dict) else None
    if size is None or is_absent(raw) or entry.get("iscrowd"):
        return None
    if find_fault(raw, size[1], size[0]):
        return None
    rle: Mapping[str, Any] = segmentation_rle(raw, size[1], size[0])  # type: ignore[arg-type]
    return rle


def _names(labelled: Labelled, below: str = "") -> dict[Any, str]:
    """A relative path for each image id: the file's own, kept inside the folder, never twice."""
    names: dict[Any, str] = {}
    taken: set[str] = set()
    for image, _, _ in labelled.by_image():
        parts = PurePosixPath(str(image.get("file_name", "image")).replace("\\", "/")).parts
        inner = [_safe(part) for part in parts if part not in ("/", "..", ".")]
        name = str(PurePosixPath(below, *inner).with_suffix("")) if inner else "image"
        if name in taken:
            name = f"{name}-{_safe(str(image['id']))}"
        taken.add(name)
        names[image["id"]] = name
    return names


def _safe(word: str) -> str:
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in word).strip(". ") or "_"


def _with_size(image: Any, size: tuple[int, int] | None) -> Any:
    if size is None or not isinstance(image, dict):
        return image
    return {"width": size[0], "height": size[1]} | image if "width" not in image else image


def _write_list(file: IO[str], entries: Iterator[Any]) -> None:
    """One entry a line, so that two outputs can be compared line by line."""
    file.write("[")
    separator = "\n"
    for entry in entries:
        file.write(separator + _dump(entry))
        separator = ",\n"
    file.write("\n]")


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, UnicodeError) as error:
        raise DataError(f"an entry cannot be written as JSON ({error}): {value!r:.80}") from None

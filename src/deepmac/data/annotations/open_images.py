"""Open Images' tables: boxes, and masks where they lie beside them.

Read here: FiftyOne's reader downloads and copies, torchvision has none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.doubts import overlap
from deepmac.data.annotations.pictures import is_file, list_pictures, picture_sizes, walk_files
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.text_file import read_text
from deepmac.data.images import ImageFileError, open_image
from deepmac.errors import DataError

BOXES = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_MASKS = ("MaskPath", "ImageID", "LabelName", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax")
_LABELS = ("ImageID", "LabelName", "Confidence")
_OF_OTHERS = (("ImageID", "OriginalURL"), ("ImageID", "LabelName1"))  # addresses, relations
_SIDES = ("XMin", "YMin", "XMax", "YMax")
_SAME_BOX = 0.9


def is_table(path: Path, columns: tuple[str, ...] = BOXES) -> bool:
    """Whether a csv file has the columns of boxes."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(4096).strip().split(",")
    except OSError:
        return False
    return set(columns) <= {word.strip() for word in header}


def read(path: Path, image_dir: Path) -> BoxFile:
    """Read a table of boxes; see ``read_boxes``.

    Beside it (or in its folder) may lie ``class-descriptions*.csv`` with the names, tables of masks
    with their PNG files, and tables of image labels, whose verified negatives become
    ``neg_category_ids``. Boxes of ``IsGroupOf`` are crowds. The images are not exhaustive.

    Raises:
        DataError: no table, or none of its pictures is there.
    """
    folder = path if path.is_dir() else path.parent
    tables = [folder / n for n in walk_files(folder) if n.lower().endswith(".csv")]
    boxes = [path] if path.is_file() else [t for t in tables if is_table(t)]
    boxes = [t for t in boxes if not is_table(t, _MASKS)]
    if not boxes or not is_table(boxes[0]):
        raise DataError(f"{path} holds no table of Open Images boxes ({', '.join(BOXES)}).")
    digest = hashlib.sha256()
    names = _names(tables)
    pictures = {Path(name).stem: name for name in list_pictures(image_dir)}
    problems: list[Problem] = []
    rows = [(t, n, row) for t in boxes for n, row in _rows(t, digest)]
    wanted = sorted({row["ImageID"] for _, _, row in rows if row["ImageID"] in pictures})
    if not wanted:
        raise DataError(f"none of the pictures of {boxes[0]} is in {image_dir}; check the folder.")
    sizes = picture_sizes([image_dir / pictures[i] for i in wanted])
    made, missing = ContentBuilder(), 0
    places: dict[str, tuple[int, tuple[int, int]]] = {}
    for identity, size in zip(wanted, sizes, strict=True):
        known = None if isinstance(size, ImageFileError) else size
        number = made.add_image(pictures[identity], known, exhaustive=False)
        if isinstance(size, ImageFileError):
            where = image_dir / pictures[identity]
            problems.append(Problem(size.kind, str(size), where, number))
        else:
            places[identity] = number, size
    by_image: dict[str, list[dict[str, Any]]] = {}
    for table, line, row in rows:
        if row["ImageID"] not in pictures:
            missing += 1
            continue
        if row["ImageID"] not in places:
            continue
        number, size = places[row["ImageID"]]
        box = _box(row, _SIDES, size)
        if box is None or not row["LabelName"]:
            text = f"{table}, line {line}: its box is no four numbers from 0 to 1; correct it."
            problems.append(Problem("malformed box", text, table, number))
            continue
        x0, y0, x1, y1 = box
        entry = made.add(
            number, row["LabelName"], bbox=[x0, y0, x1 - x0, y1 - y0],
            iscrowd=int(row.get("IsGroupOf") == "1"),
        )  # fmt: skip
        by_image.setdefault(row["ImageID"], []).append(entry)
    if missing:
        text = f"{boxes[0]}: {missing} boxes are of pictures that are not in {image_dir}."
        problems.append(Problem("box without its picture", text, boxes[0], is_note=True))
    for table in (t for t in tables if is_table(t, _MASKS)):
        _add_masks(table, digest, by_image, places, problems)
    problems += _not_read(tables)
    absent = _negatives(tables, places)
    keys = sorted({e["category_id"] for e in made.annotations} | {k for k, _ in absent})
    number_of = {key: n for n, key in enumerate(keys, start=1)}
    for entry in made.annotations:
        entry["category_id"] = number_of[entry["category_id"]]
    for key, number in absent:
        ids = made.images[number - 1].setdefault("neg_category_ids", [])
        ids.append(number_of[key])
    content = made.content({n: names.get(key, key) for key, n in number_of.items()})
    return BoxFile(path, "open_images", content, digest.hexdigest(), problems)


def _rows(path: Path, digest: Any) -> Iterator[tuple[int, dict[str, str]]]:
    text = read_text(path)
    digest.update(text.encode("utf-8", "replace"))
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
            yield number, {str(k).strip(): (v if isinstance(v, str) else "").strip()
                           for k, v in row.items()}  # fmt: skip
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); copy it again.") from None


def _names(tables: list[Path]) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in tables:
        if _is_names(path):
            for row in csv.reader(io.StringIO(read_text(path))):
                if len(row) >= 2:
                    names[row[0].strip()] = row[1].strip()
    return names


def _box(row: dict[str, str], columns: tuple[str, ...], size: tuple[int, int]) -> Any:
    """xyxy in pixels, or None."""
    try:
        values = [float(row[column]) for column in columns]
    except (KeyError, ValueError):
        return None
    if not all(math.isfinite(v) and -0.1 <= v <= 1.1 for v in values):
        return None
    return tuple(v * side for v, side in zip(values, size * 2, strict=True))


def _add_masks(
    table: Path,
    digest: Any,
    by_image: dict[str, list[dict[str, Any]]],
    places: dict[str, tuple[int, tuple[int, int]]],
    problems: list[Problem],
) -> None:
    """Each mask to the box of its class and place."""
    files = {Path(n).name: table.parent / n for n in walk_files(table.parent) if n.endswith(".png")}
    lacking = 0
    for line, row in _rows(table, digest):
        if row["ImageID"] not in places:
            continue
        _, size = places[row["ImageID"]]
        box = _box(row, ("BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax"), size)
        path = files.get(Path(row["MaskPath"]).name)
        if path is None or box is None or not is_file(path):
            lacking += 1
            continue
        best, most = None, _SAME_BOX
        for entry in by_image.get(row["ImageID"], []):
            x, y, w, h = entry["bbox"]
            share = overlap(box, (x, y, x + w, y + h))
            same = entry["category_id"] == row["LabelName"] and "segmentation" not in entry
            if same and share >= most:
                best, most = entry, share
        if best is None:
            text = f"{table}, line {line}: no box of its class lies where the mask's box is."
            problems.append(Problem("mask without its box", text, table, is_note=True))
            continue
        try:
            with open_image(path) as image:
                resized = image.convert("L").resize(size, Image.Resampling.NEAREST)
        except ImageFileError as error:
            problems.append(Problem(error.kind, str(error), path))
            continue
        rle = coco_mask.encode(np.asfortranarray(np.asarray(resized) > 0).astype(np.uint8))
        counts = rle["counts"].decode("ascii")
        best["segmentation"] = {"size": list(rle["size"]), "counts": counts}
    if lacking:
        text = f"{table}: {lacking} masks have no file below {table.parent}; unpack them there."
        problems.append(Problem("missing mask file", text, table, is_note=True))


def _not_read(tables: list[Path]) -> list[Problem]:
    """Notes on tables that are of no known kind, perhaps for a mistake in their first line."""
    found = []
    for path in tables:
        known = any(is_table(path, kind) for kind in (BOXES, _MASKS, _LABELS, *_OF_OTHERS))
        if not known and not _is_names(path):
            text = f"{path} is not read: its first line is not that of a table of Open Images."
            found.append(Problem("file not read", text, path, is_note=True))
    return found


def _is_names(path: Path) -> bool:
    return "class-descriptions" in path.name or path.name.startswith("class_descriptions")


def _negatives(
    tables: list[Path], places: dict[str, tuple[int, tuple[int, int]]]
) -> list[tuple[str, int]]:
    """(class, image) of labels that people have verified to be absent."""
    found = []
    for path in tables:
        if is_table(path, _LABELS) and not is_table(path) and not is_table(path, _MASKS):
            for _, row in _rows(path, hashlib.sha256()):
                if row["Confidence"] in ("0", "0.0") and row["ImageID"] in places:
                    found.append((row["LabelName"], places[row["ImageID"]][0]))
    return found

"""The Object Detection API's TFRecords: pictures, boxes and PNG masks in one file.

As ``create_coco_tf_record`` and its kin write them, read without TensorFlow. Pictures stay where
they are: their names say where in which file they lie (see :mod:`deepmac.data.file_parts`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.label_map import LabelMap, coco_label_map, read_label_map
from deepmac.data.annotations.pictures import picture_size
from deepmac.data.annotations.problems import Problem
from deepmac.data.file_parts import part_name
from deepmac.data.images import MAX_PIXELS, ImageFileError
from deepmac.errors import DataError
from deepmac.protobuf.tfrecord import (
    Damage,
    Record,
    Values,
    begins_as_records,
    read_example,
    read_records,
)
from deepmac.protobuf.wire import WireError

_NAMED = re.compile(r"\.(tf_?)?records?(-\d+-of-\d+)?$", re.IGNORECASE)
_SHARD = re.compile(r"-(\d+)-of-(\d+)(\.\w+)?$")
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_DIGITS = 5  # of a box in pixels; float32 holds no more
_AT_ONCE = 64  # records
_OBJECT = "image/object/"


def is_one(path: Path) -> bool:
    """Whether a file is of records, or is called as if."""
    name = path.name
    if _NAMED.search(name) or name.lower().endswith((".tfrecord", ".tfrecords")):
        return True
    return _SHARD.search(name) is not None and begins_as_records(path)


def with_siblings(path: Path) -> list[Path]:
    """A record file, with those of the same set beside it (``-00000-of-00010``, ...)."""
    shard = _SHARD.search(path.name)
    if shard is None:
        return [path]
    stem = path.name[: shard.start()]
    found = []
    for other in path.parent.iterdir():
        its = _SHARD.search(other.name)
        if its and other.name[: its.start()] == stem and its.groups()[1:] == shard.groups()[1:]:
            found.append(other)
    return sorted(found)


def missing_shards(paths: Sequence[Path]) -> list[str]:
    """What the names of the others say that there should be (``-00000-of-00010``)."""
    sets: dict[tuple[str, int, int, str], set[int]] = {}
    for path in paths:
        if found := _SHARD.search(path.name):
            key = (str(path)[: -len(found[0])], int(found[2]), len(found[1]), found[3] or "")
            sets.setdefault(key, set()).add(int(found[1]))
    missing = []
    for (stem, count, width, ending), numbers in sets.items():
        if count <= 100_000:
            lacking = sorted(set(range(count)) - numbers)
            missing += [f"{stem}-{n:0{width}}-of-{count:0{width}}{ending}" for n in lacking]
    return missing


def read(paths: Sequence[Path], image_dir: Path) -> BoxFile:
    """Read record files as one set; see ``read_boxes``.

    Image ids are the records' ``source_id``, category ids those of the label map beside the files
    (``.pbtxt``), else the records' own, else COCO's where all names are COCO's, else in the order
    of their names. Boxes are the shortest decimals in pixels whose shares of the picture are the
    stored float32 ones. ``is_crowd`` and ``group_of`` mark crowds; masks are what is not 0.

    Args:
        paths: of the files.
        image_dir: names of pictures start from here.

    Raises:
        DataError: not one record in them can be read.
    """
    digest = hashlib.sha256()
    problems: list[Problem] = []
    found: list[_Picture] = []
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for path in paths:
            damage = Damage()
            name = _below(path, image_dir)
            records = read_records(path, damage)
            digest.update(name.encode("utf-8", "replace"))
            while some := _some(records, path):
                for record, picture in zip(some, pool.map(_picture, some), strict=True):
                    digest.update(hashlib.sha256(record.data).digest())
                    where = f"{path}, record {record.number + 1}"
                    if isinstance(picture, str):
                        problems.append(Problem("malformed record", f"{where}: {picture}.", path))
                        continue
                    picture.where, picture.path = where, path
                    picture.stored = part_name(name, *picture.place(record), picture.name)
                    found.append(picture)
            problems += _damaged(path, damage)
    if lacking := missing_shards(paths):
        text = f"{lacking[0]} is not there, nor are {len(lacking) - 1} more of its set: the names "
        text += "of the others say so; copy them too."
        problems.append(Problem("missing record file", text, paths[0], is_note=True))
    if not found:
        first = f": {problems[0].message}" if problems else "; check the files."
        raise DataError(f"{paths[0]} holds no pictures{first}")
    classes = _classes(found, paths, problems)
    made = ContentBuilder()
    for picture, identity in zip(found, _ids(found, paths[0], problems), strict=True):
        _add(made, picture, identity, classes, image_dir, problems)
    content = made.content(classes.names)
    return BoxFile(paths[0], "tfrecord", content, digest.hexdigest(), problems)


@dataclass
class _Picture:
    """What a record says; ``rle`` is None for an object without a mask."""

    name: str
    source_id: str
    size: tuple[int, int] | None
    encoded: slice
    boxes: NDArray[np.float32]  # (n, 4) xyxy, shares
    texts: list[str]
    labels: list[int]
    crowd: list[bool]
    areas: list[float]
    rles: list[dict[str, Any] | None]
    faults: list[str]
    where: str = ""
    path: Path = Path()
    stored: str = ""

    def place(self, record: Record) -> tuple[int, int]:
        """Offset and size of the picture in its file."""
        return record.offset + self.encoded.start, self.encoded.stop - self.encoded.start


def _some(records: Iterator[Record], path: Path) -> list[Record]:
    try:
        return list(islice(records, _AT_ONCE))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file.") from None


def _damaged(path: Path, damage: Damage) -> list[Problem]:
    found = []
    if damage.lost:
        numbers = ", ".join(str(n + 1) for n in damage.lost[:5])
        more = ", ..." if len(damage.lost) > 5 else ""
        text = f"{path}: {len(damage.lost)} records do not agree with their checksums (number "
        text += f"{numbers}{more}); copy the file again."
        found.append(Problem("damaged record", text, path))
    if damage.end is not None:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        advice = "it is compressed with gzip, unpack it (gunzip)" if packed else "copy it again"
        found.append(Problem("damaged record file", f"{path} {damage.end}; {advice}.", path))
    return found


def _picture(record: Record) -> _Picture | str:
    """A record's content, or what is wrong with it."""
    data = record.data
    try:
        features = read_example(data)
    except WireError as error:
        return f"it is no Example of the Object Detection API ({error})"
    encoded = features.get("image/encoded")
    if not isinstance(encoded, list) or len(encoded) != 1 or not isinstance(encoded[0], slice):
        return "it has no picture image/encoded"
    columns = [_floats(features.get(f"{_OBJECT}bbox/{side}")) for side in _SIDES]
    count = len(columns[0])
    if any(len(column) != count for column in columns):
        lengths = ", ".join(f"{n} {len(c)}" for n, c in zip(_SIDES, columns, strict=True))
        return f"its boxes have sides of different number ({lengths})"
    texts = _texts(data, features.get(f"{_OBJECT}class/text"))
    labels = _integers(features.get(f"{_OBJECT}class/label"))
    if count and len(texts) != count and len(labels) != count:
        return f"it has {count} boxes, but {len(texts)} names and {len(labels)} numbers of classes"
    sides = [_integers(features.get(f"image/{side}"))[:1] for side in ("width", "height")]
    size = None
    if all(sides):
        size = (sides[0][0], sides[1][0])
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            return f"it says {size[0]} x {size[1]} pixels, which no picture has"
    crowd = [False] * count
    for key in ("is_crowd", "group_of"):
        flags = _integers(features.get(_OBJECT + key))
        if len(flags) == count:
            crowd = [was or bool(flag) for was, flag in zip(crowd, flags, strict=True)]
    areas = [float(str(v)) for v in _floats(features.get(f"{_OBJECT}area"))]
    faults: list[str] = []
    rles = _masks(data, features, count, size, faults)
    return _Picture(
        _text(data, features.get("image/filename")),
        _text(data, features.get("image/source_id")),
        size,
        encoded[0],
        np.stack(columns, axis=1),
        texts if len(texts) == count else [],
        labels if len(labels) == count else [],
        crowd,
        areas if len(areas) == count else [],
        rles,
        faults,
    )


def _masks(
    data: bytes,
    features: dict[str, Values],
    count: int,
    size: tuple[int, int] | None,
    faults: list[str],
) -> list[dict[str, Any] | None]:
    raw = features.get(f"{_OBJECT}mask")
    none: list[dict[str, Any] | None] = [None] * count
    if raw is None or not len(raw) or not count:
        return none
    if isinstance(raw, np.ndarray):
        if size is None or len(raw) != count * size[0] * size[1]:
            faults.append(f"has {len(raw)} numbers of masks for {count} boxes")
            return none
        return [_rle(mask) for mask in raw.reshape(count, size[1], size[0]) > 0.5]
    if len(raw) != count:
        faults.append(f"has {len(raw)} masks for {count} boxes")
        return none
    weights = _floats(features.get(f"{_OBJECT}mask/weight"))
    found: list[dict[str, Any] | None] = []
    for number, place in enumerate(raw):
        wanted = not (len(weights) == count and weights[number] <= 0)
        if not isinstance(place, slice) or place.stop == place.start or not wanted:
            found.append(None)
            continue
        try:
            with Image.open(io.BytesIO(data[place]), formats=["PNG"]) as image:
                if size is not None and image.size != size:
                    kind = f"of {image.size[0]} x {image.size[1]} pixels"
                    raise ValueError(f"{kind} on a picture of {size[0]} x {size[1]}")
                pixels = np.asarray(image)
        except Exception as error:  # Pillow's decoder raises many kinds
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            faults.append(f"has a mask that cannot be used, number {number + 1} ({reason})")
            found.append(None)
            continue
        found.append(
            _rle(np.asarray(pixels[..., :3].any(axis=-1) if pixels.ndim == 3 else pixels > 0))
        )
    return found


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _ids(found: list[_Picture], path: Path, problems: list[Problem]) -> list[int | str]:
    """Image ids: the records' own, if they tell the pictures apart."""
    own = [picture.source_id for picture in found]
    pairs = {(picture.source_id, picture.name) for picture in found}
    if not all(own) or (len(set(own)) < len(own) and len(pairs) == len(own)):
        text = f"{path}: its records have no image/source_id of their own; pictures are numbered "
        problems.append(Problem("image ids numbered", f"{text}from 1.", path, is_note=True))
        return list(range(1, len(own) + 1))
    if all(text.isascii() and text.isdecimal() and str(int(text)) == text for text in own):
        return [int(text) for text in own]
    return list(own)


def _classes(found: list[_Picture], paths: Sequence[Path], problems: list[Problem]) -> LabelMap:
    """Ids and names of the classes."""
    used = {text for picture in found for text in picture.texts}
    numbers = {n for picture in found for n in picture.labels}
    maps = {path: read_label_map(path) for path in _label_maps(paths)}
    fitting = {path: m for path, m in maps.items() if used <= m.id_of.keys()} or maps
    if len({tuple(sorted(m.names.items())) for m in fitting.values()}) > 1:
        listed = " and ".join(map(str, fitting))
        raise DataError(f"{listed} are label maps that give classes other ids: keep one of them.")
    if fitting:
        return next(iter(fitting.values()))
    pairs = {pair for p in found for pair in zip(p.labels, p.texts, strict=False)}
    if pairs and len(pairs) == len(numbers) == len(used):
        return LabelMap(dict(sorted(pairs)), {text: number for number, text in pairs})
    if used and used <= coco_label_map().id_of.keys():
        return coco_label_map()
    if not used and numbers:
        return LabelMap({n: str(n) for n in sorted(numbers)})
    names = dict(enumerate(sorted(used), start=1))
    text = f"{paths[0]}: there is no label map (.pbtxt) beside it; its {len(used)} classes are "
    text += "numbered in the order of their names."
    problems.append(Problem("class ids numbered", text, paths[0], is_note=True))
    return LabelMap(names, {name: number for number, name in names.items()})


def _label_maps(paths: Sequence[Path]) -> list[Path]:
    """Beside the files, or else in the folder above."""
    folder = paths[0].absolute().parent
    for place in (folder, folder.parent):
        try:
            names = sorted(entry.name for entry in place.iterdir() if entry.is_file())
        except OSError:
            continue
        maps = [n for n in names if n.endswith(".pbtxt") or ("label_map" in n and "." in n)]
        if maps:
            return [place / name for name in maps if not name.startswith(".")]
    return []


def _add(
    made: ContentBuilder,
    picture: _Picture,
    identity: int | str,
    classes: LabelMap,
    image_dir: Path,
    problems: list[Problem],
) -> None:
    entry: dict[str, Any] = {"id": identity, "file_name": picture.stored}
    made.images.append(entry)
    size = picture.size
    if size is None:
        try:
            size = picture_size(image_dir, picture.stored)
        except ImageFileError as error:
            problems.append(Problem(error.kind, f"{picture.where}: {error}", picture.path))
            return
    entry |= {"width": size[0], "height": size[1]}
    for fault in picture.faults:
        text = f"{picture.where} {fault}; correct it, or write it as an empty text for no mask."
        problems.append(Problem("malformed mask", text, picture.path))
    x0, y0, x1, y1 = (
        _pixels(picture.boxes[:, n], size[n % 2]).tolist() for n in range(len(_SIDES))
    )
    for row in range(len(picture.boxes)):
        text = picture.texts[row] if picture.texts else ""
        category = classes.id_of.get(text) if text else picture.labels[row]
        if category not in classes.names:
            shown = repr(text)[:60] if text else str(picture.labels[row])
            message = f"{picture.where}: box {row + 1} has the class {shown}, which the label map "
            message += "does not have; add it there."
            problems.append(Problem("unknown category id", message, picture.path))
            continue
        fields: dict[str, Any] = {
            "bbox": [x0[row], y0[row], x1[row] - x0[row], y1[row] - y0[row]],
            "iscrowd": int(picture.crowd[row]),
        }
        if picture.areas and picture.areas[row] > 0:
            fields["area"] = picture.areas[row]
        if picture.rles[row] is not None:
            fields["segmentation"] = picture.rles[row]
        made.add(identity, category, **fields)  # type: ignore[arg-type]


def _pixels(shares: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """The shortest decimal numbers of pixels that are stored as these shares of a side."""
    exact = shares.astype(np.float64) * side
    found = exact.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        for digits in reversed(range(_DIGITS)):
            short = np.round(exact, digits)
            same = (short / side).astype(np.float32) == shares
            found[same] = short[same]
    return found


def _below(path: Path, image_dir: Path) -> str:
    """The name of a file from the folder of the pictures; where it is not in it, its whole path."""
    try:
        return path.absolute().relative_to(image_dir.absolute()).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def _floats(values: Values | None) -> NDArray[np.float32]:
    return values if isinstance(values, np.ndarray) else np.zeros(0, np.float32)


def _integers(values: Values | None) -> list[int]:
    return [v for v in values if isinstance(v, int)] if isinstance(values, list) else []


def _texts(data: bytes, values: Values | None) -> list[str]:
    places = [v for v in values if isinstance(v, slice)] if isinstance(values, list) else []
    return [data[place].decode("utf-8", "replace") for place in places]


def _text(data: bytes, values: Values | None) -> str:
    return next(iter(_texts(data, values)), "").strip()

"""What a damaged export still says, read by other means than the project's readers.

Each reader here takes an item only where nothing about it is in doubt, and counts all others as
unclear: what the project makes of those is not judged, what it makes of the rest is.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from data.annotations import exports

WIDTH, HEIGHT = exports.SIZE
NEAR = 1.05  # pixels


@dataclass(frozen=True)
class Thing:
    """An object: its picture, class, box, and whether it has a mask; None: not known."""

    stem: str
    name: str | None
    box: tuple[float, ...]
    masked: bool | None

    def is_like(self, other: Thing) -> bool:
        """Whether both are the same object."""
        return (
            self.stem == other.stem
            and (None in (self.masked, other.masked) or self.masked == other.masked)
            and (None in (self.name, other.name) or self.name == other.name)
            and all(abs(a - b) <= NEAR for a, b in zip(self.box, other.box, strict=True))
        )


@dataclass
class Reading:
    """What an export says beyond doubt, and how many items are in doubt."""

    things: list[Thing] = field(default_factory=list)
    unclear: int = 0

    def add(self, stem: Any, name: Any, xywh: Any, masked: bool | None, sure: bool = True) -> None:
        """Take an item, if it is beyond doubt."""
        good = sure and isinstance(stem, str) and (name is None or _is_name(name))
        good = good and _numbers(xywh, 4) and xywh[2] > 1 and xywh[3] > 1
        if good:
            x, y, w, h = xywh
            good = x >= -0.5 and y >= -0.5 and x + w <= WIDTH + 0.5 and y + h <= HEIGHT + 0.5
        if good:
            self.things.append(Thing(stem, name, (x, y, x + w, y + h), masked))
        else:
            self.unclear += 1


def unlike(read: list[Thing], wanted: list[Thing]) -> tuple[int, int]:
    """How many of each list have no counterpart in the other."""
    left = list(wanted)
    extra = 0
    for thing in read:
        match = next((other for other in left if thing.is_like(other)), None)
        if match is None:
            extra += 1
        else:
            left.remove(match)
    return extra, len(left)


def read(name: str, root: Path) -> Reading | None:
    """An export by its name in ``exports.ALL``; None where it cannot be read at all."""
    kind = exports.FORMAT.get(name, name)
    found = Reading()
    try:
        if kind == "coco":
            _coco(root, found)
        elif kind == "yolo":
            _yolo(name, root, found)
        elif name == "labelme":
            _labelme(root, found)
        elif kind == "megadetector":
            _detections(root, found)
        elif name in _READERS:
            _READERS[name](root, found)
        else:
            return Reading(unclear=1 << 20)
    except Exception:  # whatever the libraries raise on what they cannot read
        return None
    return found


def _coco(root: Path, found: Reading) -> None:
    for path in sorted(root.rglob("*.json")):
        if path.name.startswith("captions"):
            continue
        content = json.loads(path.read_bytes())
        images, classes = content["images"], content["categories"]
        ids = Counter(e.get("id") if _is_int(_of(e, "id")) else None for e in images)
        of_class = Counter(_of(e, "id") if _is_int(_of(e, "id")) else None for e in classes)
        own = Counter(_of(e, "id") if _is_int(_of(e, "id")) else None
                      for e in content["annotations"])  # fmt: skip
        used = {_key(_of(e, "category_id")) for e in content["annotations"]}
        names = Counter(str(_of(e, "name")) for e in classes if _of(e, "id") in used)
        images = {e["id"]: e for e in images if _is_int(_of(e, "id"))}
        classes = {e["id"]: e for e in classes if _is_int(_of(e, "id"))}
        for entry in content["annotations"]:
            image = images.get(_key(_of(entry, "image_id")), {})
            category = classes.get(_key(_of(entry, "category_id")), {})
            raw, crowd = _of(entry, "segmentation"), _of(entry, "iscrowd")
            sure = _is_int(_of(entry, "id")) and own[entry["id"]] == 1
            sure = sure and set(entry) <= _PLAIN and (crowd is None or crowd == 0)
            sure = sure and ids[_of(image, "id")] == 1 and of_class[_of(category, "id")] == 1
            sure = sure and names[str(_of(category, "name"))] == 1
            sure = sure and _of(image, "width") == WIDTH and _of(image, "height") == HEIGHT
            outlines = isinstance(raw, list) and all(
                isinstance(r, list) and len(r) >= 6 and len(r) % 2 == 0 and _numbers(r, len(r))
                and min(r) >= 0 and max(r[::2]) <= WIDTH and max(r[1::2]) <= HEIGHT
                for r in raw
            )  # fmt: skip
            masked = isinstance(raw, list) and bool(raw)
            sure = sure and (raw is None or raw == [] or outlines)
            if sure and masked and _numbers(_of(entry, "bbox"), 4):
                x, y, w, h = entry["bbox"]
                xs, ys = [v for r in raw for v in r[::2]], [v for r in raw for v in r[1::2]]
                spans = (min(xs), min(ys), max(xs), max(ys))
                sure = all(abs(a - b) < 3 for a, b in zip(spans, (x, y, x + w, y + h), strict=True))
            file = _of(image, "file_name")
            file = _of(image, "coco_url") if file is None else file
            file = file.replace("\\", "/") if isinstance(file, str) else ""
            sure = sure and any(p.name == Path(file).name for p in root.rglob("*.jpg"))
            stem = Path(file).stem
            found.add(stem, _of(category, "name"), _of(entry, "bbox"), masked, bool(sure))


def _yolo(name: str, root: Path, found: Reading) -> None:
    names: Any = None
    for path in [*root.glob("*.yaml")]:
        names = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    length = {"yolo_seg": 10, "yolo_detect": 4, "yolo_pose": 12, "yolo_obb": 8}.get(name, 10)
    for path in sorted(root.rglob("*.txt")):
        if path.parent == root or path.name.startswith("README"):
            continue
        for line in path.read_text("utf-8").splitlines():
            words = line.split()
            if not words:
                continue
            values = [float(word) for word in words[1:]]
            sure = words[0].isdecimal() and len(values) == length
            sure = sure and all(math.isfinite(v) and 0 <= v <= 1 for v in values)
            if not sure:
                found.unclear += 1
                continue
            if length in (4, 12):
                x, y, w, h = values[:4]
                box = [(x - w / 2) * WIDTH, (y - h / 2) * HEIGHT, w * WIDTH, h * HEIGHT]
            else:
                xs, ys = [v * WIDTH for v in values[::2]], [v * HEIGHT for v in values[1::2]]
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            number = int(words[0])
            called = names.get(number, names.get(str(number))) if names else None
            found.add(path.stem, called, box, length == 10, called is not None)


def _labelme(root: Path, found: Reading) -> None:
    for path in sorted(root.rglob("*.json")):
        content = json.loads(path.read_bytes())
        whole = content.get("imageWidth") == WIDTH and content.get("imageHeight") == HEIGHT
        whole = whole and content.get("imagePath") == f"{path.stem}.jpg"
        for shape in content["shapes"]:
            points = _of(shape, "points")
            sure = isinstance(points, list) and all(_numbers(p, 2) for p in points)
            sure = sure and _of(shape, "shape_type") == "polygon" and len(points) >= 3 and whole
            if not sure or _of(shape, "group_id") is not None:
                found.unclear += 1
                continue
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            found.add(path.stem, _of(shape, "label"), box, True)


def _detections(root: Path, found: Reading) -> None:
    (path,) = root.glob("*.json")
    content = json.loads(path.read_bytes())
    if "annotations" in content:
        names = {str(_of(e, "id")): _of(e, "name") for e in content["categories"]}
        for entry in content["annotations"]:
            columns = [_of(entry, k) for k in ("bbox", "category", "confidence")]
            rows = list(zip(*columns, strict=True)) if all(map(_is_list, columns)) else []
            found.unclear += not all(map(_is_list, columns))
            for box, category, confidence in rows:
                sure = _numbers([confidence], 1) and 0.1 <= confidence <= 1 and _numbers(box, 4)
                xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]] if sure else None
                called = names.get(_key(category, str))
                found.add(_stem(root, _of(entry, "img_id")), called, xywh, False,
                          bool(sure) and _is_name(called))  # fmt: skip
        return
    names = content["detection_categories"]
    for entry in content["images"]:
        detections = _of(entry, "detections")
        if not isinstance(detections, list):
            found.unclear += 1
            continue
        for one in detections:
            box, confidence = _of(one, "bbox"), _of(one, "conf")
            sure = _numbers([confidence], 1) and 0.1 <= confidence <= 1 and _numbers(box, 4)
            sides = (WIDTH, HEIGHT) * 2
            xywh = [v * s for v, s in zip(box, sides, strict=True)] if sure else None
            called = names.get(_key(_of(one, "category"), str))
            found.add(_stem(root, _of(entry, "file")), called, xywh, False,
                      bool(sure) and _is_name(called))  # fmt: skip


def _voc(root: Path, found: Reading) -> None:
    listed = {w for p in root.glob("ImageSets/Main/*.txt") for w in p.read_text().split("\n")}
    for path in sorted(root.rglob("*.xml")):
        if path.stem not in listed:
            found.unclear += 1
            continue
        content = ElementTree.parse(path).getroot()
        size = [content.findtext(f"size/{k}") for k in ("width", "height")]
        whole = size == [str(WIDTH), str(HEIGHT)] and content.findtext("filename") == (
            f"{path.stem}.jpg"
        )
        items = list(content.iter("object"))
        masks = root / f"SegmentationObject/{path.stem}.png"
        ids = np.asarray(Image.open(masks)) if items else np.zeros(())
        for item in items:
            corners = [float(item.findtext(f"bndbox/{k}") or "nan")
                       for k in ("xmin", "ymin", "xmax", "ymax")]  # fmt: skip
            x0, y0, x1, y1 = corners
            box = [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1]
            masked = any(_spans(ids == v, box) for v in np.unique(ids) if v)
            found.add(path.stem, (item.findtext("name") or "").strip(), box, masked,
                      whole and masked)  # fmt: skip


def _open_images(root: Path, found: Reading) -> None:
    with (root / "class-descriptions-boxable.csv").open(encoding="utf-8") as file:
        names = {row[0]: row[1] for row in csv.reader(file)}
    files = {path.name for path in root.rglob("*.png")}
    outlined = set()
    for path in sorted(root.glob("*-annotations-object-segmentation.csv")):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["MaskPath"] in files:
                    places = [round(float(row[f"Box{k}"]), 6) for k in ("XMin", "YMin")]
                    outlined.add((row["ImageID"], row["LabelName"], *places))
                else:
                    found.unclear += 1
    seen: Counter[Any] = Counter()
    for path in sorted(root.glob("*-annotations-bbox.csv")):
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                key = (row["ImageID"], row["LabelName"],
                       *(round(float(row[k]), 6) for k in ("XMin", "YMin")))  # fmt: skip
                seen[key] += 1
                masked = None if seen[key] > 1 else key in outlined
                x0, x1, y0, y1 = (float(row[k]) for k in ("XMin", "XMax", "YMin", "YMax"))
                box = [x0 * WIDTH, y0 * HEIGHT, (x1 - x0) * WIDTH, (y1 - y0) * HEIGHT]
                sure = row["IsGroupOf"] == "0" and row["LabelName"] in names
                stem = _stem(root, f"{row['ImageID']}.jpg")
                found.add(stem, names.get(row["LabelName"]), box, masked, sure)


def _panoptic(root: Path, found: Reading) -> None:
    for path in sorted(root.glob("annotations/*.json")):
        content = json.loads(path.read_bytes())
        names = {e["id"]: e["name"] for e in content["categories"] if e.get("isthing", 1) == 1}
        images = {e["id"]: e for e in content["images"]}
        for entry in content["annotations"]:
            image = images[entry["image_id"]]
            rgb = np.asarray(Image.open(path.with_suffix("") / entry["file_name"])).astype(int)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            for segment in entry["segments_info"]:
                if segment["category_id"] not in names:
                    continue
                rows, columns = np.nonzero(ids == segment["id"])
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                sure = set(segment) == {"id", "category_id", "iscrowd"} and segment["iscrowd"] == 0
                sure = sure and (image["width"], image["height"]) == exports.SIZE
                stem = _stem(root, image["file_name"])
                found.add(stem, names[segment["category_id"]], [float(v) for v in box], True, sure)


def _tfrecord(root: Path, found: Reading) -> None:
    """Checksums see every damage, so what is read is what was written."""
    for stems in exports.SPLITS.values():
        for stem in stems:
            for category, flat in exports.objects(stem):
                found.add(stem, exports.NAMES[category], exports.box(flat), True)
    text = (root / "label_map.pbtxt").read_bytes()
    if text != exports.LABEL_MAP.encode():
        found.unclear += 100


_READERS = {"voc": _voc, "open_images": _open_images, "panoptic": _panoptic, "tfrecord": _tfrecord}
_PLAIN = {"id", "image_id", "category_id", "bbox", "iscrowd", "segmentation"}


def _spans(mask: np.ndarray, xywh: list[float]) -> bool:
    rows, columns = np.nonzero(mask)
    x, y, w, h = xywh
    own = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return all(abs(a - b) <= 2 for a, b in zip(own, (x, y, x + w, y + h), strict=True))


def _stem(root: Path, name: Any) -> str | None:
    if not isinstance(name, str) or not name.endswith(".jpg"):
        return None
    return Path(name).stem if any(p.name == name for p in root.rglob("*.jpg")) else None


def _of(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _key(value: Any, kind: type = int) -> Any:
    return kind(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _is_int(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 53


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    return all(type(v) in (int, float) and abs(v) < 1e6 for v in values)

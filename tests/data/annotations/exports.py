"""The same few pictures and objects as the tools export them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

SIZE = (80, 60)
NAMES = {1: "cat", 2: "dog"}
SPLITS = {"train": ("a", "b", "c d", "é"), "val": ("e", "f")}


_BOX_COLUMNS = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated"
_BOX_COLUMNS += ",IsGroupOf,IsDepiction,IsInside"
_MASK_COLUMNS = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax"


def polygon(number: int, shift: int) -> list[float]:
    """A pentagon of whole pixels with corners on all sides of its box."""
    x, y = 4 + 30 * number + shift, 6 + 3 * shift
    return [x, y, x + 20, y + 2, x + 24, y + 16, x + 9, y + 24, x + 1, y + 12]


def objects(stem: str) -> list[tuple[int, list[float]]]:
    """(class, polygon) of a picture; the last training picture is empty."""
    if stem == "é":
        return []
    shift = ord(stem[0]) % 4
    return [(1 + n % 2, polygon(n, shift)) for n in range(2)]


def box(flat: list[float]) -> list[float]:
    xs, ys = flat[0::2], flat[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mask(flat: list[float]) -> np.ndarray:
    image = Image.new("L", SIZE)
    ImageDraw.Draw(image).polygon(flat, fill=1)
    return np.asarray(image)


def pictures(folder: Path, stems: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        pixels = np.random.default_rng(ord(stem[0])).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}.jpg")


def coco(stems: tuple[str, ...], prefix: str = "", masks: bool = True, **extra: Any) -> Any:
    images = [
        {"id": i, "file_name": f"{prefix}{s}.jpg", "width": 80, "height": 60, **extra}
        for i, s in enumerate(stems, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for i, stem in enumerate(stems, start=1):
        for category, flat in objects(stem):
            entry = {"id": len(annotations) + 1, "image_id": i, "category_id": category}
            entry |= {"bbox": box(flat), "iscrowd": 0, "segmentation": [flat] if masks else []}
            annotations.append(entry)
    categories = [{"id": i, "name": name, "supercategory": "animal"} for i, name in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def coco_own(root: Path) -> None:
    for split, stems in SPLITS.items():
        _put(root / f"annotations/instances_{split}2017.json", coco(stems))
        _put(root / f"annotations/captions_{split}2017.json", {"images": [], "annotations": []})
        pictures(root / f"{split}2017", stems)


def roboflow(root: Path) -> None:
    for split, stems in (("train", SPLITS["train"]), ("valid", SPLITS["val"])):
        content = coco(stems)
        content["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
        _put(root / split / "_annotations.coco.json", content)
        pictures(root / split, stems)
    _put(root / "README.roboflow.txt", "animals\n")


def cvat(root: Path) -> None:
    _put(root / "annotations/instances_default.json", coco(sum(SPLITS.values(), ())))
    pictures(root / "images/default", sum(SPLITS.values(), ()))


def label_studio(root: Path) -> None:
    _put(root / "result.json", coco(sum(SPLITS.values(), ()), prefix="images\\"))
    pictures(root / "images", sum(SPLITS.values(), ()))


def fiftyone(root: Path) -> None:
    _put(root / "labels.json", coco(sum(SPLITS.values(), ())))
    pictures(root / "data", sum(SPLITS.values(), ()))


def several_jsons(root: Path) -> None:
    everything = sum(SPLITS.values(), ())
    for number, stems in enumerate((everything[:3], everything[3:])):
        _put(root / f"batch{number}.json", coco(stems))
    pictures(root / "images", everything)


def lvis(root: Path) -> None:
    for split, stems in SPLITS.items():
        content = coco(stems, neg_category_ids=[2], not_exhaustive_category_ids=[1])
        for image in content["images"]:
            image["coco_url"] = f"http://images.example/{split}2017/{image.pop('file_name')}"
        _put(root / f"lvis_v1_{split}.json", content)
        pictures(root / f"{split}2017", stems)


def _yolo_lines(stem: str, line: Callable[[list[float]], list[float]]) -> str:
    rows = [(c - 1, line(flat)) for c, flat in objects(stem)]
    return "".join(f"{c} {' '.join(f'{v:.8f}' for v in values)}\n" for c, values in rows)


def _relative(flat: list[float]) -> list[float]:
    return [v / side for v, side in zip(flat, SIZE * (len(flat) // 2), strict=True)]


def _center(flat: list[float]) -> list[float]:
    x, y, w, h = box(flat)
    return _relative([x + w / 2, y + h / 2, w, h])


def _yolo(root: Path, line: Callable[[list[float]], list[float]], **more: Any) -> None:
    for split, stems in SPLITS.items():
        pictures(root / "images" / split, stems)
        for stem in stems:
            _put(root / "labels" / split / f"{stem}.txt", _yolo_lines(stem, line))
    described = {"path": "../somewhere", "train": "images/train", "val": "images/val"}
    _put(root / "data.yaml", yaml.safe_dump({**described, "names": ["cat", "dog"], **more}))


def yolo_seg(root: Path) -> None:
    _yolo(root, _relative)


def yolo_detect(root: Path) -> None:
    _yolo(root, _center)


def yolo_pose(root: Path) -> None:
    _yolo(root, lambda flat: _center(flat) + _relative(flat[:8]), kpt_shape=[4, 2])


def yolo_obb(root: Path) -> None:
    def turned(flat: list[float]) -> list[float]:
        x, y, w, h = box(flat)
        return _relative([x + w / 3, y, x + w, y + h / 3, x + w * 2 / 3, y + h, x, y + h * 2 / 3])

    def square(flat: list[float]) -> list[float]:
        x, y, w, h = box(flat)
        s = min(w, h)
        return _relative([x + s / 2, y, x + s, y + s / 2, x + s / 2, y + s, x, y + s / 2])

    del turned
    _yolo(root, square)


def yolo_roboflow(root: Path) -> None:
    for split, stems in (("train", SPLITS["train"]), ("valid", SPLITS["val"])):
        pictures(root / split / "images", stems)
        for stem in stems:
            _put(root / split / "labels" / f"{stem}.txt", _yolo_lines(stem, _relative))
    sets = {"train": "../train/images", "val": "../valid/images"}
    _put(root / "data.yaml", yaml.safe_dump({**sets, "nc": 2, "names": ["cat", "dog"]}))


def yolo_lists(root: Path) -> None:
    for split, stems in SPLITS.items():
        pictures(root / "images", stems)
        for stem in stems:
            _put(root / "labels" / f"{stem}.txt", _yolo_lines(stem, _relative))
        _put(root / f"{split}.txt", "".join(f"./images/{stem}.jpg\n" for stem in stems))
    sets = {"train": "train.txt", "val": "val.txt"}
    _put(root / "animals.yaml", yaml.safe_dump({**sets, "names": {0: "cat", 1: "dog"}}))


def voc(root: Path) -> None:
    for split, stems in SPLITS.items():
        pictures(root / "JPEGImages", stems)
        _put(root / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            items = ""
            ids = np.zeros((60, 80), dtype=np.uint8)
            for number, (category, flat) in enumerate(objects(stem), start=1):
                x, y, w, h = box(flat)
                corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                inner = "".join(f"<{k}>{v}</{k}>" for k, v in corners.items())
                items += f"<object><name>{NAMES[category]}</name><bndbox>{inner}</bndbox></object>"
                ids[mask(flat) > 0] = 3 - number  # another order than the boxes
            size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
            head = f"<filename>{stem}.jpg</filename>{size}"
            text = f"<annotation>{head}{items}</annotation>"
            _put(root / f"Annotations/{stem}.xml", text)
            image = Image.fromarray(ids, mode="P")
            image.putpalette([i for i in range(256) for _ in range(3)])
            (root / "SegmentationObject").mkdir(exist_ok=True)
            image.save(root / f"SegmentationObject/{stem}.png")


def labelme(root: Path) -> None:
    for split, stems in SPLITS.items():
        pictures(root / split, stems)
        for stem in stems:
            shapes = [
                {"label": NAMES[c], "points": [f[i : i + 2] for i in range(0, 10, 2)],
                 "shape_type": "polygon", "group_id": None, "flags": {}}
                for c, f in objects(stem)
            ]  # fmt: skip
            content = {"version": "5.4", "shapes": shapes, "imagePath": f"{stem}.jpg"}
            content |= {"imageData": None, "imageHeight": 60, "imageWidth": 80}
            _put(root / split / f"{stem}.json", content)


def labelme_masks(root: Path) -> None:
    labelme(root)
    for path in root.rglob("*.json"):
        content = json.loads(path.read_text())
        for shape in content["shapes"]:
            flat = [v for point in shape["points"] for v in point]
            x, y, w, h = (int(v) for v in box(flat))
            file = io.BytesIO()
            part = mask(flat)[y : y + h + 1, x : x + w + 1]
            Image.fromarray(part * np.uint8(255)).save(file, "PNG")
            shape |= {"shape_type": "mask", "points": [[x, y], [x + w, y + h]]}
            shape["mask"] = base64.b64encode(file.getvalue()).decode()
        path.write_text(json.dumps(content))


def megadetector(root: Path) -> None:
    everything = sum(SPLITS.values(), ())
    pictures(root / "images", everything)
    images = []
    for stem in everything:
        found = []
        for category, flat in objects(stem):
            x, y, w, h = box(flat)
            relative = [x / 80, y / 60, w / 80, h / 60]
            found.append({"category": str(category), "conf": 0.9, "bbox": relative})
        images.append({"file": f"{stem}.jpg", "detections": found})
    classes = {str(key): name for key, name in NAMES.items()}
    _put(root / "md.json", {"images": images, "detection_categories": classes, "info": {}})


def wildlife(root: Path) -> None:
    everything = sum(SPLITS.values(), ())
    pictures(root / "images", everything)
    entries = []
    for stem in everything:
        boxes = [box(flat) for _, flat in objects(stem)]
        entries.append({
            "img_id": f"{stem}.jpg",
            "bbox": [[x, y, x + w, y + h] for x, y, w, h in boxes],
            "category": [category for category, _ in objects(stem)],
            "confidence": [0.8 for _ in boxes],
        })  # fmt: skip
    classes = [{"id": key, "name": name} for key, name in NAMES.items()]
    _put(root / "result.json", {"annotations": entries, "categories": classes})


def open_images(root: Path) -> None:
    _put(root / "class-descriptions-boxable.csv", "/m/01,cat\n/m/02,dog\n")
    for split, stems in (("train", SPLITS["train"]), ("validation", SPLITS["val"])):
        pictures(root / split, stems)
        boxes = io.StringIO()
        rows = csv.writer(boxes)
        rows.writerow(_BOX_COLUMNS.split(","))
        masks = io.StringIO()
        mask_rows = csv.writer(masks)
        mask_rows.writerow(_MASK_COLUMNS.split(","))
        (root / f"{split}-masks").mkdir()
        for stem in stems:
            for number, (category, flat) in enumerate(objects(stem)):
                x, y, w, h = box(flat)
                place = [x / 80, (x + w) / 80, y / 60, (y + h) / 60]
                label = f"/m/0{category}"
                rows.writerow([stem, "xclick", label, 1, *place, 0, 0, 0, 0, 0])
                name = f"{stem}_{number}.png"
                mask_rows.writerow([name, stem, label, number, *place])
                pixels = Image.fromarray(mask(flat) * np.uint8(255))
                pixels.resize((160, 120), 0).save(root / f"{split}-masks/{name}")
        _put(root / f"{split}-annotations-bbox.csv", boxes.getvalue())
        _put(root / f"{split}-annotations-object-segmentation.csv", masks.getvalue())


def panoptic(root: Path) -> None:
    for split, stems in SPLITS.items():
        pictures(root / split, stems)
        content = coco(stems)
        content["categories"].append({"id": 90, "name": "sky", "isthing": 0})
        folder = root / f"annotations/panoptic_{split}"
        folder.mkdir(parents=True)
        entries = []
        for image in content["images"]:
            stem = Path(image["file_name"]).stem
            ids = np.full((60, 80), 70_000)
            segments = [{"id": 70_000, "category_id": 90, "iscrowd": 0, "bbox": [0, 0, 80, 60]}]
            for number, (category, flat) in enumerate(objects(stem), start=300):
                ids[mask(flat) > 0] = number
                segments.append({"id": number, "category_id": category, "iscrowd": 0})
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
            Image.fromarray(rgb.astype(np.uint8)).save(folder / f"{stem}.png")
            entries.append({"image_id": image["id"], "file_name": f"{stem}.png",
                            "segments_info": segments})  # fmt: skip
        _put(root / f"annotations/panoptic_{split}.json", {**content, "annotations": entries})


def record(path: Path, examples: list[bytes]) -> None:
    """A TFRecord file: each example between its length and the checksums of both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for example in examples:
        head = struct.pack("<Q", len(example))
        parts += [
            head,
            struct.pack("<I", _masked(head)),
            example,
            struct.pack("<I", _masked(example)),
        ]
    path.write_bytes(b"".join(parts))


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def example(features: dict[str, Any]) -> bytes:
    """A tf.train.Example of lists of bytes, of floats or of integers."""
    entries = b""
    for name, values in features.items():
        if all(isinstance(v, bytes) for v in values):
            feature = _field(1, b"".join(_field(1, v) for v in values))
        elif any(isinstance(v, float) for v in values):
            feature = _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = _field(3, _field(1, b"".join(_varint(v) for v in values)))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def coco_features(folder: Path, stem: str, number: int) -> dict[str, Any]:
    """What create_coco_tf_record writes of a picture."""
    found = objects(stem)
    boxes = [box(flat) for _, flat in found]
    masks = []
    for _, flat in found:
        file = io.BytesIO()
        Image.fromarray(mask(flat)).save(file, "PNG")
        masks.append(file.getvalue())
    encoded = (folder / f"{stem}.jpg").read_bytes()
    return {
        "image/height": [60], "image/width": [80],
        "image/filename": [f"{stem}.jpg".encode()], "image/source_id": [str(number).encode()],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/encoded": [encoded], "image/format": [b"jpeg"],
        "image/object/bbox/xmin": [x / 80 for x, _, _, _ in boxes],
        "image/object/bbox/xmax": [(x + w) / 80 for x, _, w, _ in boxes],
        "image/object/bbox/ymin": [y / 60 for _, y, _, _ in boxes],
        "image/object/bbox/ymax": [(y + h) / 60 for _, y, _, h in boxes],
        "image/object/class/text": [NAMES[c].encode() for c, _ in found],
        "image/object/is_crowd": [0 for _ in found],
        "image/object/area": [float(mask(flat).sum()) for _, flat in found],
        "image/object/mask": masks,
    }  # fmt: skip


LABEL_MAP = """item {
  name: "/m/01yrx"
  id: 1
  display_name: "cat"
}
item { name: "/m/0bt9lr" id: 2 display_name: "dog" }
"""


def tfrecord(root: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for split, stems in SPLITS.items():
            folder = Path(temporary)
            pictures(folder, stems)
            made = [example(coco_features(folder, s, n)) for n, s in enumerate(stems, start=1)]
            for shard in range(3):
                record(root / f"coco_{split}.record-{shard:05}-of-00003", made[shard::3])
    _put(root / "label_map.pbtxt", LABEL_MAP)


ALL: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        coco_own, roboflow, cvat, label_studio, fiftyone, several_jsons, lvis, yolo_seg,
        yolo_detect, yolo_pose, yolo_obb, yolo_roboflow, yolo_lists, voc, labelme, labelme_masks,
        megadetector, wildlife, open_images, panoptic, tfrecord,
    )
}  # fmt: skip
FORMAT = {
    "lvis": "coco", "coco_own": "coco", "roboflow": "coco", "cvat": "coco", "label_studio": "coco",
    "fiftyone": "coco", "several_jsons": "coco", "yolo_seg": "yolo", "yolo_detect": "yolo",
    "yolo_pose": "yolo", "yolo_obb": "yolo", "yolo_roboflow": "yolo", "yolo_lists": "yolo",
    "labelme_masks": "labelme", "wildlife": "megadetector",
}  # fmt: skip
WITHOUT_MASKS = ("yolo_detect", "yolo_pose", "yolo_obb", "megadetector", "wildlife")
ONE_SET = ("cvat", "label_studio", "fiftyone", "several_jsons", "megadetector", "wildlife")

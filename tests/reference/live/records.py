"""TFRecords that the original's script writes of a COCO json: the table of the json itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from pycocotools import mask as masks
from table import Answer, Dtype, Pair

from deepmac.data.annotations.coco import CocoIndex, decode_mask
from deepmac.data.images import read_image
from deepmac.data.settings import read_annotations

HERE = Path(__file__).resolve().parent
IMAGES = 20


def ask(python: Path, folder: Path, seed: int) -> None:
    """Have the original write 20 pictures of coco_mini, or where that is absent a drawn set."""
    folder.mkdir(parents=True, exist_ok=True)
    source, images = _source(folder)
    content = json.loads(source.read_text())
    chosen = np.random.default_rng(seed).permutation(len(content["images"]))[:IMAGES]
    content["images"] = [content["images"][i] for i in sorted(chosen.tolist())]
    kept = {image["id"]: image for image in content["images"]}
    own = [a for a in content["annotations"] if a["image_id"] in kept]
    for annotation in own:
        if isinstance(annotation["segmentation"], dict):
            annotation["segmentation"] = _plain_runs(annotation["segmentation"])
    content["annotations"] = own
    some = folder / "json/annotations/instances_train.json"
    some.parent.mkdir(parents=True, exist_ok=True)
    some.write_text(json.dumps(content))
    (folder / "images.txt").write_text(str(images))
    (folder / "records").mkdir(exist_ok=True)
    for form in (3, 1):
        out = folder / f"records/coco_{'train' if form == 3 else 'val'}.record"
        command = [python, HERE / "tf_records.py", some, images, out, form]
        done = subprocess.run(
            [str(part) for part in command], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"the original's create_coco_tf_record failed:\n{done.stderr[-3000:]}")


def _plain_runs(rle: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as numbers: the original's script takes no others."""
    if isinstance(rle["counts"], list):
        return rle
    bits = masks.decode({**rle, "counts": rle["counts"].encode()}).flatten(order="F")
    ends = np.flatnonzero(np.diff(bits)) + 1
    counts = np.diff([0, *ends, len(bits)]).tolist()
    return {"size": rle["size"], "counts": [0, *counts] if bits[0] else counts}


def answers(folder: Path, dtype: Dtype) -> Iterator[Answer]:
    if dtype == "float64":
        return
    folder = folder.parent / "tfrecord"
    images = Path((folder / "images.txt").read_text())
    settings: dict[str, Any] = {"root": folder / "json", "image_dir": images, "val_share": 0.0}
    of_json = read_annotations(settings, "train")
    for split in ("train", "val"):
        ours = read_annotations({"root": folder / "records"}, split)
        yield from _compared(ours, _as_the_script_takes_them(of_json), split)


def _as_the_script_takes_them(index: CocoIndex) -> list[Any]:
    """Images with what the script writes of them: boxes that leave the picture are left out."""
    content = json.loads(index.json_path.read_text())
    beyond = set()
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        width, height = sizes[entry["image_id"]]
        if w <= 0 or h <= 0 or x + w > width or y + h > height:
            beyond.add(entry["id"])
    order = {entry["id"]: n for n, entry in enumerate(content["annotations"])}
    images = []
    for image in index.images:
        kept = [item for item in image.instances if item.id not in beyond]
        images.append(replace(image, instances=tuple(sorted(kept, key=lambda i: order[i.id]))))
    return images


def _compared(ours: CocoIndex, theirs: list[Any], split: str) -> Iterator[Answer]:
    part = f"TFRecords, {3 if split == 'train' else 1} shards"
    mine = list(ours.images)
    one, two = ([(i.id, i.width, i.height, crc32(i.file_name.encode())) for i in side]
                for side in (mine, theirs))  # fmt: skip
    yield Answer(part, "ids, sizes, names", [Pair(one, two)], (0.0, None), absolute=True)
    rows = [(item, i) for i in mine for item in i.instances]
    other = [(item, i) for i in theirs for item in i.instances]
    facts = [[(item.category_id, item.iscrowd, i.id) for item, i in side] for side in (rows, other)]
    yield Answer(part, "classes and crowds", [Pair(*facts)], (0.0, None), absolute=True)
    boxes = [[item.box for item, _ in side] for side in (rows, other)]
    yield Answer(part, "boxes, pixels", [Pair(*boxes)], (1e-9, None), absolute=True)
    areas = [[item.area for item, _ in side] for side in (rows, other)]
    yield Answer(part, "areas", [Pair(*areas)], (1e-7, None))
    masks = []
    pixels = []
    for (item, image), (its, _) in zip(rows, other, strict=True):
        pair = [None if i.segmentation is None else decode_mask(i, image.height, image.width)
                for i in (item, its)]  # fmt: skip
        absent = [mask is None for mask in pair]
        masks.append(
            float(absent[0] != absent[1]) if any(absent) else float((pair[0] != pair[1]).sum())
        )
    for image, its in zip(mine, theirs, strict=True):
        read = [read_image(i.path, (i.width, i.height)).astype(int) for i in (image, its)]
        pixels.append(float(abs(read[0] - read[1]).max()))
    nothing = [0.0] * len(masks)
    yield Answer(part, "masks, pixels", [Pair(masks, nothing)], (0.0, None), absolute=True)
    nothing = [0.0] * len(pixels)
    yield Answer(part, "pictures, grey levels", [Pair(pixels, nothing)], (0.0, None), absolute=True)


def _source(folder: Path) -> tuple[Path, Path]:
    shared = Path(os.environ.get("DEEPMAC_SHARED", HERE.parents[3] / "shared")) / "coco_mini"
    if shared.is_dir():
        return shared / "annotations/instances_train.json", shared / "images"
    from deepmac.data.shapes.data_set import ensure_shapes

    root = ensure_shapes(num_train=40, num_val=2, size=96)
    content = json.loads((root / "annotations/instances_train.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a.get("segmentation")]
    drawn = folder / "drawn.json"
    drawn.write_text(json.dumps(content))
    return drawn, root / "images"

"""Opening an annotation file of COCO's form: ours checks every entry, pycocotools indexes them."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from benchmarks.table import Row
from deepmac.data.annotations.coco import read_coco


def rows(quick: bool) -> list[Row]:
    """A tenth of COCO train2017: 11,800 images, 98,000 polygons."""
    images, objects = (50, 400) if quick else (11_800, 98_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        _write(path, images, objects)
        spent = []
        for _ in range(1 if quick else 3):
            started = time.perf_counter()
            read_coco(path, Path(folder), check_images="none")
            middle = time.perf_counter()
            with redirect_stdout(StringIO()):
                COCO(str(path))
            spent.append((middle - started, time.perf_counter() - middle))
        ours, theirs = np.median(spent, axis=0)
        size = path.stat().st_size / 1e6
    how = f"{images} images, {objects} objects, {size:.0f} MB; every entry checked by ours"
    return [Row("opening annotations", "s", float(ours), "pycocotools", float(theirs), None, how)]


def _write(path: Path, images: int, objects: int) -> None:
    random = np.random.default_rng(0)
    annotations = []
    for number in range(1, objects + 1):
        x, y, w, h = (*random.uniform(0, 300, 2).round(2), *random.uniform(20, 170, 2).round(2))
        corners = 2 * np.pi * np.arange(22) / 22
        outline = np.stack(
            [x + w / 2 * (1 + np.cos(corners)), y + h / 2 * (1 + np.sin(corners))], 1
        )
        annotations.append(
            {
                "id": number,
                "image_id": int(random.integers(1, images + 1)),
                "category_id": int(random.integers(1, 81)),
                "bbox": [x, y, w, h],
                "area": round(w * h * np.pi / 4, 2),
                "iscrowd": 0,
                "segmentation": [outline.round(2).ravel().tolist()],
            }
        )
    content = {
        "images": [
            {"id": n, "file_name": f"{n:012}.jpg", "width": 640, "height": 480}
            for n in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, 81)],
    }
    path.write_text(json.dumps(content))

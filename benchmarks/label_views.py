"""What ``deepmac label`` gains by tiles, and how well it does in turned boxes.

``python -m benchmarks.label_views tiles --root DIR`` lays the pictures of a data set in COCO's
layout side by side into one of 6000 x 4000, labels it with and without ``--tiles``, and compares
the mean IoU of the objects that have less than 32 x 32 pixels of the network's input. ``python -m
benchmarks.label_views turned`` draws turned shapes and gives the label command their turned boxes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from deepmac.data.annotations.locate import locate_coco
from deepmac.data.annotations.segmentation import segmentation_rle
from deepmac.data.images import read_image
from deepmac.label.job import label
from deepmac.label.settings import LabelSettings
from deepmac.models.files import card_of, load_model

_SMALL = 32**2


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_views", description=__doc__)
    parser.add_argument("what", choices=("tiles", "turned"))
    parser.add_argument("--model", default="deepmac-lite")
    parser.add_argument("--root", type=Path, help="of the data set, for tiles")
    parser.add_argument("--split", default="val")
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--pictures", type=int, default=40, help="for turned")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "tiles":
            _tiles(options, Path(folder))
        else:
            _turned(options, Path(folder))


def _tiles(options: argparse.Namespace, folder: Path) -> None:
    content, truths = _mosaic(options, folder)
    (folder / "boxes.json").write_text(json.dumps(content))
    card = card_of(load_model(options.model))
    scale = (card.image_size if card else 512) / max(options.width, options.height)
    small = [n for n, rle in enumerate(truths) if coco_mask.area(rle) * scale**2 < _SMALL]
    print(
        f"{options.width} x {options.height}, {len(truths)} objects, {len(small)} of them under "
        "32 x 32 in the network's input"
    )
    for tiles in (False, True):
        started = time.perf_counter()
        iou = _ious(options.model, folder, truths, f"tiles-{tiles}", tiles=tiles)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"  tiles {tiles!s:5}  mean IoU of the small {np.mean(iou[small]):.3f}, of all "
            f"{np.mean(iou):.3f}, {time.perf_counter() - started:.0f} s, peak {peak:.2f} GiB"
        )


def _ious(
    model: str, folder: Path, truths: list[Any], name: str, *, tiles: bool
) -> NDArray[np.float64]:
    settings = LabelSettings(
        images=folder,
        boxes=folder / "boxes.json",
        out=folder / f"{name}.json",
        tiles=tiles,
        workers=0,
        accelerator="cpu",
        quiet=True,
    )
    label(load_model(model), settings)
    made = json.loads((folder / f"{name}.json").read_text())["annotations"]
    return np.array(
        [
            float(coco_mask.iou([entry["segmentation"]], [truth], [0])[0, 0])
            if "mask_score" in entry
            else 0.0
            for entry, truth in zip(made, truths, strict=True)
        ]
    )


def _mosaic(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """Rows of pictures at their own size, as many as there is room for."""
    json_path, images = locate_coco(options.root, options.split)
    source = json.loads(json_path.read_text())
    canvas = np.zeros((options.height, options.width, 3), dtype=np.uint8)
    annotations: list[dict[str, Any]] = []
    truths: list[Any] = []
    left = top = tallest = 0
    for image in source["images"]:
        width, height = image["width"], image["height"]
        if left + width > options.width:
            left, top, tallest = 0, top + tallest, 0
        if top + height > options.height:
            break
        canvas[top : top + height, left : left + width] = read_image(images / image["file_name"])
        for entry in source["annotations"]:
            if entry["image_id"] != image["id"] or entry["iscrowd"]:
                continue
            mask = coco_mask.decode(segmentation_rle(entry["segmentation"], height, width))
            if not mask.any():
                continue
            whole = np.zeros(canvas.shape[:2], dtype=np.uint8, order="F")
            whole[top : top + height, left : left + width] = mask
            truths.append(coco_mask.encode(whole))
            x, y, w, h = entry["bbox"]
            kept = {"id": len(truths), "image_id": 1, "category_id": entry["category_id"]}
            annotations.append({**kept, "bbox": [x + left, y + top, w, h]})
        left, tallest = left + width, max(tallest, height)
    Image.fromarray(canvas).save(folder / "mosaic.png", compress_level=1)
    entry = {"id": 1, "file_name": "mosaic.png", "width": options.width, "height": options.height}
    content = {"images": [entry], "categories": source["categories"], "annotations": annotations}
    return content, truths


def _turned(options: argparse.Namespace, folder: Path) -> None:
    rng = np.random.default_rng(0)
    images, annotations, truths = [], [], []
    for number in range(1, options.pictures + 1):
        tint = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(tint).resize((640, 480), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for place in range(3):
            centre = np.array([110 + 210 * place, rng.uniform(150, 330)])
            half = np.array([rng.uniform(40, 95), rng.uniform(15, 40)])
            degrees = float(rng.uniform(-90, 90))
            corners = _outline(int(rng.integers(3)), half, degrees) + centre
            pen.polygon([tuple(point) for point in corners], tuple(rng.integers(0, 256, 3)))
            truths.append(
                coco_mask.merge(coco_mask.frPyObjects([corners.ravel().tolist()], 480, 640))
            )
            box = [*(centre - half).tolist(), *(2 * half).tolist()]
            annotations.append(
                {"id": len(truths), "image_id": number, "category_id": 1, "bbox": box,
                 "attributes": {"rotation": degrees}}
            )  # fmt: skip
        name = f"{number}.png"
        picture.save(folder / name)
        images.append({"id": number, "file_name": name, "width": 640, "height": 480})
    content = {"images": images, "categories": [{"id": 1, "name": "shape"}]}
    (folder / "boxes.json").write_text(json.dumps({**content, "annotations": annotations}))
    iou = _ious(options.model, folder, truths, "turned", tiles=False)
    print(
        f"{len(iou)} turned shapes (ellipses, rectangles, diamonds): mean IoU {iou.mean():.3f}, "
        f"worst tenth {np.sort(iou)[: len(iou) // 10].mean():.3f}"
    )


def _outline(kind: int, half: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """(n, 2) corners of a shape that fills its box, turned clockwise on the screen."""
    if kind == 0:
        angles = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        shape = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind == 1:
        shape = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    else:
        shape = np.array([[-1.0, 0.0], [0.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: NDArray[np.float64] = (shape * half) @ np.array([[cos, sin], [-sin, cos]])
    return turned


if __name__ == "__main__":
    main()

"""Where the network looks: every box in one view, whole, with what lies around it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from deepmac.cli import main
from deepmac.data.annotations.turned import turned_box
from deepmac.label.masks.turned import TurnedBox, turned_rle
from deepmac.label.plan import ImageTask
from deepmac.label.views import put_upright, views_of


def task_of(boxes, size, degrees=()) -> ImageTask:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    rows = np.arange(len(array))
    return ImageTask(0, Path("a.png"), size, rows, array, np.array(degrees, dtype=np.float64))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(40, 3000), st.integers(40, 3000)),
    seed=st.integers(0, 10_000),
    margin=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_tiles__hold_every_box_once_and_whole_with_its_surroundings(size, seed, margin) -> None:
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(0, np.log(min(size)), (40, 2)))
    start = rng.uniform(0, 1, (40, 2)) * (np.array(size) - sides)
    task = task_of(np.concatenate([start, start + sides], axis=1), size)
    views = views_of(task, 256, tiles=True, margin=margin)
    assert sorted(np.concatenate([view.task.rows for view in views]).tolist()) == list(range(40))
    for view in views:
        left, top, right, bottom = view.window
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        longer = (view.task.boxes[:, 2:] - view.task.boxes[:, :2]).max(axis=1, keepdims=True)
        around = max(margin, 0.25) * longer
        grown = view.task.boxes + np.concatenate([-around, -around, around, around], axis=1)
        grown = np.clip(grown, 0, [*size, *size])
        assert (grown >= [left, top, left, top]).all()
        assert (grown <= [right, bottom, right, bottom]).all()
        if (right - left, bottom - top) != size:
            assert (longer <= (max(right - left, bottom - top)) / 2).all()


def test_no_tiles__is_one_view_of_the_whole_picture() -> None:
    (view,) = views_of(task_of([[1, 1, 5, 5]], (4000, 3000)), 256)
    assert view.window == (0, 0, 4000, 3000)


def drawn(box, degrees, size) -> np.ndarray:
    """(H, W) bool, a filled turned rectangle."""
    (x0, y0, x1, y1), angle = box, math.radians(degrees)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    corners = []
    for u, v in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        u, v = u - x, v - y
        corners += [x + u * math.cos(angle) - v * math.sin(angle)]
        corners += [y + u * math.sin(angle) + v * math.cos(angle)]
    rle = coco_mask.merge(coco_mask.frPyObjects([corners], size[1], size[0]))
    return coco_mask.decode(rle).astype(bool)


@pytest.mark.parametrize("degrees", [-40.0, -10.0, 12.5, 33.0, 45.0])
def test_turned_box__is_shown_upright_and_its_mask_is_turned_back(degrees: float) -> None:
    size, box = (500, 400), (150.0, 140.0, 350.0, 220.0)
    truth = drawn(box, degrees, size)
    pixels = np.repeat((truth * 255).astype(np.uint8)[..., None], 3, axis=2)
    (view,) = views_of(task_of([box], size, [degrees]), 256)
    shown, within = put_upright(view, pixels, view.task.boxes, 256)
    assert shown.shape == (256, 256, 3)
    x0, y0, x1, y1 = np.round(within[0]).astype(int)
    expected = np.zeros((256, 256), dtype=bool)
    expected[y0:y1, x0:x1] = True
    seen = shown[..., 0] > 127
    assert (seen & expected).sum() / (seen | expected).sum() > 0.95
    turned = TurnedBox(np.array(box), degrees)
    rle = turned_rle(np.ones((32, 32), np.float32), np.array(box), turned, size[::-1], 0.5)
    mask = coco_mask.decode(rle).astype(bool)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.97


def test_turned_boxes__are_read_as_cvat_and_yolo_write_them() -> None:
    plain = {"bbox": [10, 20, 40, 10]}
    assert turned_box(plain) is None
    assert turned_box({**plain, "attributes": {"rotation": 0.0}}) is None
    (box, degrees) = turned_box({**plain, "attributes": {"rotation": 30.0}})
    assert box == (10, 20, 50, 30) and degrees == pytest.approx(30)
    (box, degrees) = turned_box({**plain, "rotation": 120})  # as -60 or 30, with sides swapped
    assert degrees == pytest.approx(30) and box == (25, 5, 35, 45)
    angle = math.radians(20)
    corners = [
        value
        for u, v in ((-20, -5), (20, -5), (20, 5), (-20, 5))
        for value in (
            30 + u * math.cos(angle) - v * math.sin(angle),
            25 + u * math.sin(angle) + v * math.cos(angle),
        )
    ]
    (box, degrees) = turned_box({"corners": corners})
    assert degrees == pytest.approx(20) and box == pytest.approx((10, 20, 50, 30))
    for wrong in ({"corners": [1, 2]}, {"rotation": "x", **plain}, {"rotation": math.nan, **plain}):
        with pytest.raises(ValueError, match="has the"):
            turned_box(wrong)


def test_turned_and_tiled_jobs__give_masks_within_their_boxes_and_resume(
    model_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    """One picture of many views, one of them turned, beside an ordinary picture."""
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("large.png", (600, 400)), ("small.png", (60, 60))):
        picture = Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))
        ImageDraw.Draw(picture).rectangle((20, 20, 50, 40), fill=(200, 30, 30))
        picture.save(images / name)
    boxes = [[20 + 60 * n, 15 + 40 * n, 24, 18] for n in range(8)] + [[100, 50, 400, 300]]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes)
    ]
    annotations[3]["rotation"] = 30
    annotations.append({"id": 90, "image_id": 2, "category_id": 1, "bbox": [10, 10, 30, 30]})
    content = {
        "images": [
            {"id": 1, "file_name": "large.png", "width": 600, "height": 400},
            {"id": 2, "file_name": "small.png", "width": 60, "height": 60},
        ],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": annotations,
    }
    source = tmp_path / "boxes.json"
    source.write_text(json.dumps(content))

    def run(out: str, *words: str) -> SimpleNamespace:
        given = ["--model", str(model_dir), "--images", str(images), "--boxes", str(source)]
        given += ["--out", str(tmp_path / out), "--accelerator", "cpu", "--workers", "0"]
        code = main(["label", *given, *words])
        path = tmp_path / out
        return SimpleNamespace(code=code, path=path, content=json.loads(path.read_text()))

    tiled, whole = run("tiled.json", "--tiles"), run("whole.json")
    assert tiled.code == whole.code == 0
    for done in (tiled, whole):
        entry = done.content["annotations"][3]
        inside = drawn((200, 135, 224, 153), 30, (600, 400))
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        assert mask.any() and (mask & ~inside).sum() <= 0.05 * inside.sum()
        assert done.content["annotations"][-1] == whole.content["annotations"][-1]
    assert tiled.content["annotations"][0] != whole.content["annotations"][0]
    assert tiled.content["annotations"][8] == whole.content["annotations"][8]  # too large to tile

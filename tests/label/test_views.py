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


def corners_of(box, degrees) -> list[tuple[float, float]]:
    """Of a turned box, in order."""
    (x0, y0, x1, y1), angle = box, math.radians(degrees)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return [
        (
            x + (u - x) * math.cos(angle) - (v - y) * math.sin(angle),
            y + (u - x) * math.sin(angle) + (v - y) * math.cos(angle),
        )
        for u, v in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    ]


def filled(ring, size) -> np.ndarray:
    flat = np.array(ring).ravel().tolist()
    rle = coco_mask.merge(coco_mask.frPyObjects([flat], size[1], size[0]))
    return coco_mask.decode(rle).astype(bool)


def drawn(box, degrees, size) -> np.ndarray:
    """(H, W) bool, a filled turned rectangle."""
    return filled(corners_of(box, degrees), size)


def drawn_ellipse(box, degrees, size) -> np.ndarray:
    """(H, W) bool, a filled turned ellipse."""
    (x0, y0, x1, y1), angle = box, math.radians(degrees)
    t = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    u, v = (x1 - x0) / 2 * np.cos(t), (y1 - y0) / 2 * np.sin(t)
    x = (x0 + x1) / 2 + u * math.cos(angle) - v * math.sin(angle)
    y = (y0 + y1) / 2 + u * math.sin(angle) + v * math.cos(angle)
    return filled(np.stack([x, y], axis=1), size)


@pytest.mark.parametrize("degrees", [-40.0, -10.0, 12.5, 33.0, 45.0])
def test_turned_box__is_shown_upright_and_its_mask_is_turned_back(degrees: float) -> None:
    size, box = (500, 400), (150.0, 140.0, 350.0, 220.0)
    truth = drawn(box, degrees, size)
    pixels = np.repeat((truth * 255).astype(np.uint8)[..., None], 3, axis=2)
    (view,) = views_of(task_of([box], size, [degrees]), 256)
    shown, within, _ = put_upright(view, pixels, view.task.boxes, 256)
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


TURNED = (  # box before it is turned, degrees, ellipse or not
    ((60.0, 90.0, 220.0, 150.0), 35.0, True),
    ((260.0, 60.0, 380.0, 200.0), -20.0, False),
    ((120.0, 230.0, 330.0, 290.0), 12.0, False),
)


@pytest.fixture(scope="module")
def turned_picture(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One picture of turned shapes, its boxes as CVAT and as YOLO write them, and the truth."""
    root, size = tmp_path_factory.mktemp("turned"), (420, 330)
    picture, truths, boxes = Image.new("RGB", size, (60, 110, 70)), [], []
    annotations, lines = [], []
    for n, (box, degrees, ellipse) in enumerate(TURNED):
        inside = drawn(box, degrees, size)
        truth = drawn_ellipse(box, degrees, size) if ellipse else inside
        tint = [(210, 60, 40), (230, 200, 60), (70, 80, 220)][n]
        picture.paste(tint, mask=Image.fromarray((truth * 255).astype(np.uint8)))
        truths.append(truth)
        boxes.append(inside)
        x0, y0, x1, y1 = box
        annotations.append(
            {"id": n + 1, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0],
             "attributes": {"occluded": False, "rotation": degrees}}
        )  # fmt: skip
        values = np.array(corners_of(box, degrees)) / size
        lines.append("0 " + " ".join(f"{value:.6f}" for value in values.ravel()))
    (root / "images").mkdir()
    (root / "labels").mkdir()
    picture.save(root / "images/a.png")
    (root / "labels/a.txt").write_text("\n".join(lines) + "\n")
    image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
    content = {"images": [image], "categories": [{"id": 1, "name": "shape"}]}
    (root / "cvat.json").write_text(json.dumps({**content, "annotations": annotations}))
    return SimpleNamespace(root=root, truths=truths, boxes=boxes)


@pytest.mark.filterwarnings("error:.*not writable")
@pytest.mark.parametrize("words", ["cvat.json", "labels", "labels --boxes-format yolo-obb"])
def test_turned_boxes_of_tools__get_good_masks_within_them(
    turned_picture: SimpleNamespace, tmp_path: Path, words: str
) -> None:
    """From CVAT's rotation and YOLO-obb's corners to the masks, with the model that is shipped."""
    root, (boxes, *more) = turned_picture.root, words.split()
    given = ["--images", str(root / "images"), "--boxes", str(root / boxes), *more]
    given += ["--out", str(tmp_path / "out.json"), "--accelerator", "cpu", "--workers", "0"]
    assert main(["label", *given]) == 0
    made = json.loads((tmp_path / "out.json").read_text())["annotations"]
    found = [coco_mask.decode(entry["segmentation"]).astype(bool) for entry in made]
    rows = zip(found, turned_picture.truths, turned_picture.boxes, strict=True)
    for mask, truth, box in rows:
        assert (mask & truth).sum() / (mask | truth).sum() >= 0.85
        assert (mask & ~box).sum() <= 0.01 * box.sum()


def test_tiles__cut_no_object_where_they_meet(tmp_path: Path) -> None:
    """Rings and bars that lie on the seams of every grid of tiles, one larger than a tile."""
    size, unit = (1536, 1024), 512
    picture, truths, boxes = Image.new("RGB", size, (60, 110, 70)), [], []
    places = [(unit, 200), (unit, unit), (2 * unit, unit), (300, unit), (unit // 2, 780)]
    places += [(3 * unit // 2, 256), (2 * unit + 256, 768)]
    for n, (x, y) in enumerate(places):
        half = (34 + 5 * n, 22 + 4 * n) if n < 6 else (220, 200)
        boxes.append((x - half[0], y - half[1], x + half[0], y + half[1]))
        truths.append(drawn_ellipse(boxes[-1], 0.0, size))
        tint = [(210, 60, 40), (230, 200, 60), (70, 80, 220)][n % 3]
        picture.paste(tint, mask=Image.fromarray((truths[-1] * 255).astype(np.uint8)))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images/a.png")
    image = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for n, (x0, y0, x1, y1) in enumerate(boxes)
    ]
    content = {"images": [image], "categories": [{"id": 1, "name": "shape"}]}
    (tmp_path / "boxes.json").write_text(json.dumps({**content, "annotations": annotations}))
    given = ["--images", str(tmp_path / "images"), "--boxes", str(tmp_path / "boxes.json")]
    given += ["--out", str(tmp_path / "out.json"), "--accelerator", "cpu", "--workers", "0"]
    assert main(["label", *given, "--tiles"]) == 0
    made = json.loads((tmp_path / "out.json").read_text())["annotations"]
    for entry, truth, (x0, y0, x1, y1) in zip(made, truths, boxes, strict=True):
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        assert (mask & truth).sum() / (mask | truth).sum() >= 0.9
        across, down = mask[y0:y1, x0:x1].any(0), mask[y0:y1, x0:x1].any(1)
        assert across[3:-3].all() and down[3:-3].all()  # from side to side, without a gap

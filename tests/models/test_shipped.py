"""``deepmac-lite``, the model that comes with the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.clicks import next_click
from PIL import Image
from pycocotools.coco import COCO

from deepmac import Predictor, load_model
from deepmac.errors import UserError
from deepmac.models.files import card_of
from deepmac.models.place import SHIPPED

EVERY = 8
"""Every eighth validation image: enough to tell a model from a filled box."""


def test_deepmac_lite__is_small() -> None:
    assert sum(file.stat().st_size for file in (SHIPPED / "deepmac-lite").iterdir()) < 25e6


def test_deepmac_lite__loads_by_its_name_anywhere_without_a_network(tmp_path: Path) -> None:
    script = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from deepmac import load_model\n"
        "print(sum(p.numel() for p in load_model('deepmac-lite').parameters()))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 5e6 < int(done.stdout) < 7e6


def test_deepmac_lite__is_in_single_precision_and_knows_its_classes() -> None:
    model = load_model("deepmac-lite")
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
    card = card_of(model)
    assert card is not None and card.image_size == 640 and card.refine == "edges"
    assert dict(zip(card.class_map.category_ids, card.class_map.names, strict=True)).items() >= {
        (1, "person"), (44, "bottle"), (90, "toothbrush"), (1084, "taxi van"),
    }  # fmt: skip
    coco = [i for i in card.class_map.category_ids if i <= 90]
    assert len(coco) == 80 and len(card.class_map) == 107
    assert set(card.class_map.masked_category_ids) == set(card.class_map.category_ids)


def test_deepmac_lite__has_no_detector_and_says_so() -> None:
    model = load_model("deepmac-lite")
    assert not model.detector
    predictor = Predictor(model)
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="has no detector: give it boxes"):
        predictor.detect()


def test_a_folder_of_that_name__goes_before_the_shipped_model(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "deepmac-lite").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"holds no model\.safetensors"):
        load_model("deepmac-lite")


def test_deepmac_lite__is_as_good_on_photographs_as_its_card_says(shared: Path) -> None:
    coco = COCO(shared / "coco_mini" / "annotations" / "instances_val.json")
    predictor = Predictor(load_model("deepmac-lite"))
    overlaps, floors = [], []
    for image_id in sorted(coco.imgs)[::EVERY]:
        entry = coco.imgs[image_id]
        objects = [a for a in coco.imgToAnns[image_id] if not a["iscrowd"]]
        if not objects:
            continue
        picture = Image.open(shared / "coco_mini" / "images" / entry["file_name"]).convert("RGB")
        predictor.set_image(picture)
        boxes = np.array([a["bbox"] for a in objects])
        boxes[:, 2:] += boxes[:, :2]
        masks, _ = predictor.predict(boxes)
        for mask, box, annotation in zip(masks, boxes, objects, strict=True):
            truth = coco.annToMask(annotation).astype(bool)
            x0, y0, x1, y1 = box.round().astype(int)
            filled = np.zeros_like(truth)
            filled[y0:y1, x0:x1] = True
            overlaps.append((mask & truth).sum() / (mask | truth).sum())
            floors.append((filled & truth).sum() / (filled | truth).sum())
    told = json.loads((SHIPPED / "deepmac-lite" / "calibration.json").read_text())["measured"]
    assert np.mean(overlaps) > np.mean(floors) + 0.05
    assert np.mean(overlaps) == pytest.approx(told["mean_iou"], abs=0.04)


@pytest.mark.slow
def test_deepmac_lite__is_corrected_by_three_clicks(shared: Path) -> None:
    coco = COCO(shared / "coco_mini" / "annotations" / "instances_val.json")
    predictor = Predictor(load_model("deepmac-lite"))
    gains = []
    for image_id in sorted(coco.imgs)[:: 8 * EVERY]:
        entry = coco.imgs[image_id]
        objects = [a for a in coco.imgToAnns[image_id] if not a["iscrowd"]]
        if not objects:
            continue
        predictor.set_image(shared / "coco_mini" / "images" / entry["file_name"])
        boxes = np.array([a["bbox"] for a in objects])
        boxes[:, 2:] += boxes[:, :2]
        truth = [coco.annToMask(a).astype(bool) for a in objects]
        clicks: list[list[tuple[float, float, int]]] = [[] for _ in boxes]
        overlaps = []
        for _ in range(4):
            masks = predictor.predict(boxes, points=clicks).masks
            pairs = list(zip(masks, truth, strict=True))
            overlaps.append([(m & t).sum() / (m | t).sum() for m, t in pairs])
            for row, pair in enumerate(pairs):
                if (click := next_click(*pair, boxes[row])) is not None:
                    clicks[row].append(click)
        gains += [after - before for before, after in zip(overlaps[0], overlaps[3], strict=True)]
    assert np.mean(gains) > 0.04

"""Boxes in, masks out: what goes in comes out unchanged, with masks."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pytorch_lightning.accelerators import CUDAAccelerator

from deepmac.cli import main
from deepmac.data.annotations.segmentation import segmentation_rle
from deepmac.label.inference import device_of
from deepmac.models.files import card_of, write_model

Label = Callable[..., Any]


@pytest.fixture
def label(model_dir: Path, data: SimpleNamespace, tmp_path: Path, capsys) -> Label:
    """Runs the command; gives the output's content (of a folder: its path) and what was said."""

    def run(boxes: Path, *words: str, out: str = "out", code: int = 0) -> SimpleNamespace:
        given = [
            *("--model", str(model_dir), "--images", str(data.images), "--boxes", str(boxes)),
            *("--out", str(tmp_path / out), "--accelerator", "cpu", "--workers", "0"),
        ]
        assert main(["label", *given, *words]) == code, capsys.readouterr()
        said = capsys.readouterr()
        path = tmp_path / out
        content = json.loads(path.read_text()) if path.is_file() else None
        return SimpleNamespace(content=content, path=path, out=said.out, err=said.err)

    return run


def rle_of(entry: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    return segmentation_rle(entry["segmentation"], image["height"], image["width"])


def iou(first: Any, second: Any) -> float:
    return float(coco_mask.iou([first], [second], [0])[0, 0])


def test_one_image__is_said_in_english(label: Label, boxes_only: Path) -> None:
    content = json.loads(boxes_only.read_text())
    content["annotations"] = content["annotations"][:1]
    of = content["annotations"][0]["image_id"]
    content["images"] = [image for image in content["images"] if image["id"] == of]
    boxes_only.write_text(json.dumps(content))
    done = label(boxes_only)
    assert "1 mask to make on 1 image with" in done.out and "1 mask on 1 image ->" in done.out
    assert not re.search(r"\b1 (masks|images)\b", done.out + done.err)


def test_threshold__is_the_models_own_unless_given(
    label: Label, boxes_only: Path, model_dir: Path, tmp_path: Path
) -> None:
    card = yaml.safe_load((model_dir / "config.yaml").read_text())
    assert card["mask_threshold"] == 0.5
    lower = tmp_path / "lower"
    shutil.copytree(model_dir, lower)
    (lower / "config.yaml").write_text(yaml.safe_dump({**card, "mask_threshold": 0.3}))

    def masks(*words: str) -> list[Any]:
        made = label(boxes_only, *words, out=f"out{len(list(tmp_path.iterdir()))}.json").content
        return [entry["segmentation"] for entry in made["annotations"]]

    own = masks("--model", str(lower))
    assert own == masks("--threshold", "0.3") != masks()
    assert masks("--model", str(lower), "--threshold", "0.5") == masks()


def test_refine__gives_the_predictors_refined_masks(
    label: Label, boxes_only: Path, model_dir: Path, data
) -> None:
    from deepmac import Predictor, load_model

    made = label(boxes_only, "--refine", "edges").content
    plain = label(boxes_only, out="plain.json").content
    images = {image["id"]: image for image in made["images"]}
    predictor = Predictor(load_model(model_dir), refine="edges")
    differ = 0
    for entry, before in zip(made["annotations"], plain["annotations"], strict=True):
        image = images[entry["image_id"]]
        predictor.set_image(data.images / image["file_name"])
        x, y, w, h = entry["bbox"]
        [mask], _ = predictor.predict([[x, y, x + w, y + h]])
        ours = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert iou(ours, rle_of(entry, image)) > 0.97
        assert entry["mask_score"] == before["mask_score"]
        differ += entry["segmentation"] != before["segmentation"]
    assert differ > 10


def test_pictures_of_different_shapes__get_the_predictors_masks_whatever_the_batch(
    tmp_path: Path, model_dir: Path
) -> None:
    from deepmac import Predictor, load_model

    model = load_model(model_dir)
    card = card_of(model)
    assert card is not None
    shown = replace(card, image_size=128, input_shape="picture")
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model", model.state_dict(), shown)
    draw, content = np.random.default_rng(0), {"categories": [{"id": 1, "name": "ant"}]}
    content |= {"images": [], "annotations": []}
    for number, (height, width) in enumerate([(60, 90), (96, 96), (120, 40), (60, 90), (30, 200)]):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        size = {"height": height, "width": width}
        content["images"].append({"id": number, "file_name": f"{number}.png", **size})
        for part in range(number):  # the first one has no box
            box = [part + 2, 3, width - 9 - part, height - 7]
            entry = {"id": 10 * number + part, "image_id": number, "category_id": 1, "bbox": box}
            content["annotations"].append(entry)
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    made = []
    for batch in ("1", "4"):
        out = tmp_path / f"{batch}.json"
        words = ["--model", str(tmp_path / "model"), "--images", str(tmp_path), "--boxes"]
        words += [str(tmp_path / "boxes.json"), "--out", str(out), "--batch-size", batch]
        assert main(["label", *words, "--accelerator", "cpu", "--workers", "0"]) == 0
        made.append(json.loads(out.read_text())["annotations"])
    predictor = Predictor(load_model(tmp_path / "model"))
    for one, other in zip(*made, strict=True):
        image = content["images"][one["image_id"]]
        predictor.set_image(tmp_path / image["file_name"])
        x, y, w, h = one["bbox"]
        [mask], _ = predictor.predict([[x, y, x + w, y + h]])
        ours = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert iou(ours, rle_of(one, image)) > 0.97
        assert iou(rle_of(other, image), rle_of(one, image)) > 0.97


def test_everything_but_the_masks__is_the_input(label: Label, data, tmp_path: Path) -> None:
    content = json.loads(data.train.read_text())
    content["licenses"] = [{"id": 4, "name": "é"}]
    content["annotations"].reverse()
    for entry in content["annotations"]:
        entry["note"] = {"by": "hand"}
        entry["bbox"] = [value + 0.125 for value in entry["bbox"]]
    content["images"][3]["camera"] = "left"
    boxes = tmp_path / "in.json"
    boxes.write_text(json.dumps(content))
    made = label(boxes).content
    note = made.pop("deepmac_label")
    assert note["mask_score"] == "raw, uncalibrated"
    assert list(made) == list(content)
    assert made["images"] == content["images"]
    assert made["categories"] == content["categories"]
    assert made["licenses"] == content["licenses"]
    added = 0
    for before, after in zip(content["annotations"], made["annotations"], strict=True):
        if before.get("segmentation"):
            assert after == before  # a person's mask
            continue
        added += 1
        ours = ("segmentation", "area", "mask_score")
        assert {k: v for k, v in after.items() if k not in ours} == {
            k: v for k, v in before.items() if k not in ours
        }
        assert 0 < after["mask_score"] <= 1
        assert coco_mask.area(after["segmentation"]) == after["area"]
    assert added == note["masks"] > 20


def test_masks_and_boxes__are_the_predictors(label: Label, boxes_only, model_dir, data) -> None:
    from deepmac import Predictor, load_model
    from deepmac.predict.masks import mask_scores

    made = label(boxes_only).content
    predictor = Predictor(load_model(model_dir))
    for image in made["images"][:5]:
        mine = [a for a in made["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in mine], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        predictor.set_image(data.images / image["file_name"])
        masks, _ = predictor.predict(boxes)
        scores = mask_scores(predictor.predict_crops(boxes))
        for entry, mask, score in zip(mine, masks, scores, strict=True):
            decoded = coco_mask.decode(entry["segmentation"]).astype(bool)
            assert (decoded != mask).mean() < 1e-3
            assert entry["mask_score"] == pytest.approx(score, abs=2e-3)


def test_human_masks__are_counted_and_never_overwritten(label: Label, data) -> None:
    done = label(data.train)
    content = json.loads(data.train.read_text())
    kept = sum(bool(a.get("segmentation")) for a in content["annotations"])
    assert f"{kept} x human mask kept" in done.out
    again = label(done.path, out="again")
    assert f"{len(content['annotations'])} x human mask kept" in again.out
    assert again.content["annotations"] == done.content["annotations"]


def test_tighten_boxes__gives_the_masks_own(label: Label, boxes_only: Path) -> None:
    plain, tight = label(boxes_only), label(boxes_only, "--tighten-boxes", out="tight")
    for before, after in zip(
        plain.content["annotations"], tight.content["annotations"], strict=True
    ):
        assert after["segmentation"] == before["segmentation"]
        assert after["bbox"] == coco_mask.toBbox(after["segmentation"]).tolist()


def test_box_margin__lets_masks_leave_their_boxes_and_keeps_the_boxes(
    label: Label, boxes_only: Path
) -> None:
    given = json.loads(boxes_only.read_text())["annotations"]
    wide = label(boxes_only, "--box-margin", "0.3").content["annotations"]
    assert [a["bbox"] for a in wide] == [a["bbox"] for a in given]
    outside = 0
    for entry in wide:
        x, y, w, h = entry["bbox"]
        left, top, mask_w, mask_h = coco_mask.toBbox(entry["segmentation"])
        outside += left < x - 1 or top < y - 1 or left + mask_w > x + w + 1
        assert left >= x - 0.3 * w - 1 and left + mask_w <= x + 1.3 * w + 1
        assert top >= y - 0.3 * h - 1 and top + mask_h <= y + 1.3 * h + 1
    assert outside > 5


def test_clean_up__leaves_one_part_without_holes(label: Label, boxes_only: Path) -> None:
    from deepmac.label.masks.components import label_components

    raw = label(boxes_only).content["annotations"]
    words = ("--largest-component", "--fill-holes")
    clean = label(boxes_only, *words, out="clean").content["annotations"]
    changed = 0
    for before, after in zip(raw, clean, strict=True):
        mask = coco_mask.decode(after["segmentation"]).astype(bool)
        assert label_components(mask, diagonal=True)[1] == 1
        assert label_components(np.pad(~mask, 1, constant_values=True), diagonal=False)[1] == 1
        changed += after["segmentation"] != before["segmentation"]
    assert changed > 10


def test_polygons__rasterise_to_the_masks(label: Label, boxes_only: Path) -> None:
    rle = label(boxes_only).content
    polygons = label(boxes_only, "--format", "coco-polygons", out="polygons").content
    images = {image["id"]: image for image in rle["images"]}
    large = 0
    for one, other in zip(rle["annotations"], polygons["annotations"], strict=True):
        assert isinstance(other["segmentation"], list)
        image = images[one["image_id"]]
        found = iou(rle_of(one, image), rle_of(other, image))
        assert found >= 0.98 or one["area"] < 32**2
        assert found > 0.85
        large += one["area"] > 32**2
    assert large > 20


def test_results__load_into_pycocotools(label: Label, boxes_only: Path) -> None:
    truth = label(boxes_only).path
    results = label(boxes_only, "--format", "coco-results", out="results.json")
    loaded = COCO(str(truth)).loadRes(str(results.path))
    assert (
        len(loaded.anns)
        == len(results.content)
        == len(json.loads(truth.read_text())["annotations"])
    )
    by_id = {a["id"]: a for a in json.loads(truth.read_text())["annotations"]}
    for entry in results.content:
        whole = by_id[entry["annotation_id"]]
        assert entry["segmentation"] == whole["segmentation"]
        assert entry["bbox"] == whole["bbox"] and entry["score"] == whole["mask_score"]


def test_output__is_a_coco_file_for_training(label: Label, boxes_only: Path, data) -> None:
    from deepmac.data.annotations.coco import read_coco
    from deepmac.data.annotations.reading import Reading

    reading = Reading(rectangle_masks="mask")  # random weights fill some boxes to their corners
    for form in ("coco", "coco-polygons"):
        made = label(boxes_only, "--format", form, out=form).path
        index = read_coco(made, data.images, reading=reading)
        assert all(o.segmentation is not None for image in index.images for o in image.instances)
        assert not index.problems


def test_cvat_style_import__reads_run_lengths_and_polygons_alike(
    label: Label, boxes_only: Path
) -> None:
    """CVAT takes polygons as shapes and run lengths as masks: see what each gives, by its rules."""
    rle = label(boxes_only).content
    polygons = label(boxes_only, "--format", "coco-polygons", out="polygons").content
    sizes = {image["id"]: (image["height"], image["width"]) for image in rle["images"]}
    for one, other in zip(rle["annotations"], polygons["annotations"], strict=True):
        height, width = sizes[one["image_id"]]
        mask = one["segmentation"]
        assert mask["size"] == [height, width] and isinstance(mask["counts"], str)
        shapes = other["segmentation"]
        assert all(len(shape) >= 6 and len(shape) % 2 == 0 for shape in shapes)
        points = np.array([v for shape in shapes for v in shape]).reshape(-1, 2)
        assert (points >= 0).all() and (points <= (width, height)).all()
        merged = coco_mask.merge(coco_mask.frPyObjects(copy.deepcopy(shapes), height, width))
        assert iou(merged, mask) >= 0.98 or one["area"] < 32**2


def test_supervision__reads_the_output(label: Label, boxes_only: Path, data) -> None:
    supervision = pytest.importorskip("supervision")
    made = label(boxes_only)
    read = supervision.DetectionDataset.from_coco(
        images_directory_path=str(data.images), annotations_path=str(made.path), force_masks=True
    )
    found = 0
    images = {image["file_name"]: image for image in made.content["images"]}
    for path, _, detections in read:
        image = images[Path(path).name]
        mine = [a for a in made.content["annotations"] if a["image_id"] == image["id"]]
        assert len(mine) == len(detections)
        for entry, mask in zip(mine, detections.mask, strict=True):
            assert (coco_mask.decode(entry["segmentation"]).astype(bool) == mask).all()
            found += 1
    assert found == len(made.content["annotations"])


def test_png__holds_every_mask_exactly(label: Label, data) -> None:
    made = label(data.train).content
    folder = label(data.train, "--format", "png", out="png").path
    names = {image["id"]: Path(image["file_name"]).stem for image in made["images"]}
    for entry in made["annotations"]:
        pixels = np.array(Image.open(folder / names[entry["image_id"]] / f"{entry['id']}.png"))
        assert (pixels.astype(bool) == coco_mask.decode(entry["segmentation"]).astype(bool)).all()
    rows = (folder / "index.csv").read_text().splitlines()
    assert len(rows) == 1 + len(made["annotations"])
    assert sum(row.endswith(",human") for row in rows) > 10


def test_yolo_seg__holds_every_mask_as_one_outline(label: Label, data) -> None:
    made = label(data.train).content
    folder = label(data.train, "--format", "yolo-seg", out="yolo").path
    order = sorted(category["id"] for category in made["categories"])
    assert "names:" in (folder / "data.yaml").read_text()
    checked = 0
    for image in made["images"]:
        mine = [a for a in made["annotations"] if a["image_id"] == image["id"]]
        lines = (folder / "labels" / image["file_name"]).with_suffix(".txt").read_text()
        for entry, line in zip(mine, lines.splitlines(), strict=True):
            number, *values = line.split()
            assert order[int(number)] == entry["category_id"]
            points = np.array(values, dtype=float).reshape(-1, 2)
            assert (points >= 0).all() and (points <= 1).all()
            flat = (points * (image["width"], image["height"])).ravel().tolist()
            drawn = coco_mask.merge(coco_mask.frPyObjects([flat], image["height"], image["width"]))
            assert iou(drawn, rle_of(entry, image)) >= 0.97 or entry["area"] < 32**2
            checked += 1
    assert checked == len(made["annotations"])


def test_many_boxes_on_one_picture__are_split_over_the_head(
    label: Label, boxes_only: Path, monkeypatch
) -> None:
    from deepmac.predict import masks

    content = json.loads(boxes_only.read_text())
    first = content["images"][0]["id"]
    template = content["annotations"][0]
    content["annotations"] = [
        {**template, "id": n, "image_id": first, "bbox": [n % 40, n // 4, 30 + n % 7, 40]}
        for n in range(150)
    ]
    boxes_only.write_text(json.dumps(content))
    assert masks.BOXES_PER_STEP < 100
    made = label(boxes_only).content["annotations"]
    assert len({a["segmentation"]["counts"] for a in made}) > 100


@pytest.mark.slow
def test_hundred_thousand_boxes__stay_within_bounded_memory(
    model_dir: Path, tmp_path: Path
) -> None:
    """The peak of a job of 100,000 boxes is little above that of one of 10,000."""
    import os
    import subprocess
    import sys

    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(folder / "a.jpg")
    peaks = []
    for count in (10_000, 100_000):
        per_image = 100
        content = {
            "images": [
                {"id": n, "file_name": "a.jpg", "width": 160, "height": 120}
                for n in range(count // per_image)
            ],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [
                {"id": n, "image_id": n // per_image, "category_id": 1,
                 "bbox": [n % 70, n % 50, 60, 60]}
                for n in range(count)
            ],
        }  # fmt: skip
        boxes = tmp_path / f"{count}.json"
        boxes.write_text(json.dumps(content))
        words = ["--model", str(model_dir), "--images", str(folder), "--boxes", str(boxes)]
        words += ["--out", str(tmp_path / f"{count}.out.json"), "--workers", "0"]
        code = (
            "import resource, sys; from deepmac.cli import main; "
            "assert main(sys.argv[1:]) == 0; "
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "label", *words, "--accelerator", "cpu"],
            capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        peaks.append(int(done.stdout.split("peak")[1]))
        assert f"{count} masks" in done.stdout
    assert peaks[1] - peaks[0] < 400, peaks  # MiB, mostly the box file itself


def test_real_boxes__are_labelled_end_to_end_and_come_back(
    shared: Path, model_dir: Path, tmp_path: Path, capsys
) -> None:
    """coco_mini val without its masks: photographs in grey and colour, crowds, tiny objects."""
    content = json.loads((shared / "coco_mini/annotations/instances_val.json").read_text())
    for entry in content["annotations"]:
        if not entry["iscrowd"]:
            entry["segmentation"] = []
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    words = ["--model", str(model_dir), "--images", str(shared / "coco_mini/images")]
    words += ["--boxes", str(boxes), "--accelerator", "cpu", "--workers", "0"]
    made = {}
    for form in ("coco", "coco-polygons", "coco-results"):
        assert main(["label", *words, "--format", form, "--out", str(tmp_path / form)]) == 0
        made[form] = json.loads((tmp_path / form).read_text())
    objects = [a for a in content["annotations"] if not a["iscrowd"]]
    said = capsys.readouterr().out
    assert "19 x human mask kept" in said
    images = {image["id"]: image for image in content["images"]}
    masks = 0
    for one, other in zip(
        made["coco"]["annotations"], made["coco-polygons"]["annotations"], strict=True
    ):
        if "mask_score" in one:
            masks += 1
            image = images[one["image_id"]]
            found = iou(rle_of(one, image), rle_of(other, image))
            assert found >= 0.98 or one["area"] < 32**2
    empty = len(objects) - masks
    assert empty < 0.1 * len(objects)
    loaded = COCO(str(tmp_path / "coco")).loadRes(str(tmp_path / "coco-results"))
    assert len(loaded.anns) == masks == len(made["coco-results"])


def test_network__is_prepared_for_the_device_that_the_trainer_moves_it_to():
    on_a_card = SimpleNamespace(accelerator=CUDAAccelerator())
    assert device_of(on_a_card).type == "cuda"
    assert device_of(pl.Trainer(accelerator="cpu", logger=False)).type == "cpu"

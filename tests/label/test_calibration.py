"""The score of a mask is the IoU to expect, and the report says how well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepmac.cli import main
from deepmac.errors import DataError, UserError
from deepmac.evaluation.mask_quality import MaskQuality, mask_quality
from deepmac.label.masks.calibration import Calibration, calibrate, calibration_error, spearman
from deepmac.label.masks.held_out import quality_figures


def overconfident(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Raw scores that rank masks rightly and promise far too much."""
    rng = np.random.default_rng(seed)
    quality = rng.random(count)
    iou = np.clip(quality + rng.normal(0, 0.08, count), 0, 1)
    return quality ** (1 / 4), iou, (np.arange(count) // 5).tolist()


def test_calibrated_scores__predict_the_iou_of_other_masks() -> None:
    made = calibrate(*overconfident(2000))
    raw, iou, _ = overconfident(3000, seed=1)
    predicted = np.array([made(score) for score in raw])
    assert calibration_error(raw, iou) > 0.2
    assert calibration_error(predicted, iou) < 0.03
    assert made.measured["calibration_error_raw"] > 0.2
    assert made.measured["calibration_error_held_out"] < 0.03
    assert made.measured["spearman"] == pytest.approx(spearman(raw, iou), abs=0.02)
    assert made.measured["held_out_spearman"] > 0.9


def test_map__never_falls_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    made = calibrate(rng.random(400), rng.random(400), list(range(400)))
    values = [made(score) for score in np.linspace(-1, 2, 100)]
    assert (np.diff(values) >= 0).all() and min(values) >= 0 and max(values) <= 1


def test_spearman__of_known_orders() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 4, 9, 16])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == pytest.approx(-1)
    # ties share ranks: by hand, ranks (1.5, 1.5, 3) and (1, 2, 3)
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(0.75**0.5)
    assert spearman(np.ones(3), np.arange(3.0)) == 0


def test_calibration_file__comes_back_and_is_bound_to_its_model(tmp_path: Path) -> None:
    made = calibrate(*overconfident(300), "abc")
    path = tmp_path / "calibration.json"
    path.write_text(made.to_json())
    assert Calibration.read(path, "abc") == made
    with pytest.raises(UserError, match="calibrates another model"):
        Calibration.read(path, "abd")
    for wrong in ("{}", "[", '{"format": "deepmac-calibration-1", "raw": [1, 1], "iou": [0, 1]}'):
        path.write_text(wrong)
        with pytest.raises(UserError, match="is no calibration"):
            Calibration.read(path, "abc")


def test_too_few_masks__are_refused() -> None:
    with pytest.raises(DataError, match="too few to calibrate"):
        calibrate(*overconfident(20))


def test_quality_figures__count_good_and_bad_masks_and_tell_sizes_apart() -> None:
    ious = [0.9, 0.95, 0.5, 0.4999, 0.7]
    qualities = [MaskQuality(iou=iou, boundary_iou=iou / 2) for iou in ious]
    found = quality_figures(qualities, [32**2 - 1, 32**2, 96**2, 96**2 + 1, 10**6])
    assert found == {
        "mean_boundary_iou": pytest.approx(sum(ious) / 10, abs=1e-4),
        "share_at_least_0.9": 0.4,
        "share_under_0.5": 0.2,
        "masks_small": 1,
        "mean_iou_small": 0.9,
        "masks_medium": 2,
        "mean_iou_medium": pytest.approx(0.725),
        "masks_large": 2,
        "mean_iou_large": pytest.approx(0.6, abs=1e-4),
    }
    assert quality_figures(qualities[:1], [5])["mean_iou_large"] is None


def test_calibration__measures_masks_as_an_evaluation_does(
    model_dir: Path, data: SimpleNamespace, boxes_only: Path, tmp_path: Path, capsys
) -> None:
    """Beside pycocotools and the definition of boundary IoU, on the masks that label writes."""
    common = ["label", "--model", str(model_dir), "--images", str(data.images)]
    common += ["--accelerator", "cpu", "--workers", "0"]
    made = tmp_path / "calibration.json"
    assert main([*common, "--calibrate", str(data.train), "--out", str(made)]) == 0
    said = capsys.readouterr().out
    assert main([*common, "--boxes", str(boxes_only), "--out", str(tmp_path / "out.json")]) == 0
    predicted = {a["id"]: a for a in json.loads((tmp_path / "out.json").read_text())["annotations"]}
    truth = COCO(data.train)
    ious, boundary_ious, areas = [], [], []
    for one in truth.loadAnns(truth.getAnnIds(iscrowd=False)):
        if not one.get("segmentation"):
            continue
        true, own = truth.annToRLE(one), predicted[one["id"]].get("segmentation")
        ious.append(coco_mask.iou([own], [true], [0])[0, 0] if own else 0)
        boundary_ious.append(mask_quality(own, true).boundary_iou if own else 0)
        areas.append(coco_mask.area(true))
    measured = json.loads(made.read_text())["measured"]
    assert measured["masks"] == len(ious)
    assert measured["mean_iou"] == pytest.approx(np.mean(ious), abs=1e-4)
    assert measured["mean_boundary_iou"] == pytest.approx(np.mean(boundary_ious), abs=1e-4)
    assert measured["mean_boundary_iou"] < measured["mean_iou"]
    small = np.array(areas) < 32**2
    assert measured["masks_small"] == small.sum()
    assert f"boundary IoU {measured['mean_boundary_iou']:.3f}" in said
    assert f"small {np.mean(np.array(ious)[small]):.3f} ({small.sum()})" in said
    assert f"under 0.5: {np.mean(np.array(ious) < 0.5):.1%}" in said


def test_calibrate_command__writes_to_the_model_and_label_uses_it(
    model_dir: Path, data: SimpleNamespace, boxes_only: Path, tmp_path: Path, capsys
) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    common = ["--model", str(model), "--images", str(data.images), "--accelerator", "cpu"]
    common += ["--workers", "0"]
    # masks of "seen" classes in the training file do for the mechanics
    assert main(["label", *common, "--calibrate", str(data.train)]) == 0
    said = capsys.readouterr().out
    assert "Spearman" in said and "expected calibration error" in said and "filled box" in said
    measured = json.loads((model / "calibration.json").read_text())["measured"]
    assert measured["masks"] >= 40

    words = ["label", *common, "--boxes", str(boxes_only)]
    assert main([*words, "--out", str(tmp_path / "out.json")]) == 0
    assert "is the IoU to expect" in capsys.readouterr().out
    calibrated = json.loads((tmp_path / "out.json").read_text())
    assert calibrated["deepmac_label"]["mask_score"] == "expected IoU, calibrated"
    (model / "calibration.json").rename(tmp_path / "elsewhere.json")
    assert main([*words, "--out", str(tmp_path / "raw.json")]) == 0
    assert "not calibrated" in capsys.readouterr().out
    raw = json.loads((tmp_path / "raw.json").read_text())
    made = Calibration.read(
        tmp_path / "elsewhere.json",
        json.loads((tmp_path / "out.report.json").read_text())["job"]["model"],
    )
    for one, other in zip(raw["annotations"], calibrated["annotations"], strict=True):
        assert other["mask_score"] == pytest.approx(made(one["mask_score"]), abs=1e-4)

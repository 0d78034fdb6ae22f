"""A detector that learns from images that are not exhaustive, and one that is left out."""

import json

import pytest

import tiny
from deepmac import load_model


@pytest.mark.slow
def test_a_detector_left_out__trains_evaluates_and_labels(tmp_path):
    def run(command, *words, ok=True):
        done = tiny.run(command, cwd=tmp_path, cache=tmp_path / "cache")
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    fit = [*tiny.TINY, "callbacks.pictures=null", "logger.tensorboard=null"]
    said = run(tiny.train_py(*fit, "data.exhaustive=false", "hydra.run.dir=whole"))
    assert "16 of 16 training images are not exhaustive" in said and "no background" in said
    whole = tmp_path / "whole/checkpoints/last.ckpt"

    # As it is evaluated, and the table of a training without one.
    masks_only = ["model.detector=false", "data.exhaustive=false", f"model.init_from={whole}"]
    trained = run(tiny.train_py(*fit, *masks_only, "hydra.run.dir=masks"))
    assert "exhaustive" not in trained  # which is nothing to masks in true boxes
    validate = ["validate", *tiny.TINY, "model.detector=false", f"ckpt_path={whole}"]
    evaluated = run(tiny.deepmac(*validate, "hydra.run.dir=evaluated"))
    for text in (trained, evaluated):
        rows = [line.split() for line in text.splitlines()]
        assert sum("no detector" in " ".join(row) for row in rows) == 2
    assert (tmp_path / "masks/checkpoints/best.ckpt").is_file()  # of best masks in true boxes
    metrics = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("masks", "whole")]
    assert [found["detector"] for found in metrics] == [False, True]
    assert metrics[0]["box"]["AP"]["all"] is None
    assert metrics[0]["mask_gt_box"]["mIoU"]["all"] > 0
    page = run(tiny.deepmac("report", "masks", "--out", "report.html"))
    assert "report.html" in page and "no detector" in (tmp_path / "report.html").read_text()

    # A training goes on as it was, or begins anew.
    refused = run(
        tiny.train_py(*fit, "model.detector=false", "hydra.run.dir=whole", "ckpt_path=last"),
        ok=False,
    )
    assert "model.init_from" in refused and "Traceback" not in refused

    # Smaller, and good for label.
    export = ["export", str(whole), "--masks-only", "--format", "safetensors", "--out", "small"]
    run(tiny.deepmac(*export))
    assert not load_model(tmp_path / "small").detector
    data = next((tmp_path / "cache").rglob("instances_val.json"))
    boxes = json.loads(data.read_text())
    boxes["annotations"] = [{**a, "segmentation": []} for a in boxes["annotations"]]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    given = ["--images", str(data.parents[1] / "images"), "--boxes", "boxes.json"]
    made = []
    for name, model in (
        ("all", str(whole)),
        ("few", "small"),
        ("own", "masks/checkpoints/last.ckpt"),
    ):
        words = ["--model", model, "--out", f"{name}.json", "--accelerator", "cpu"]
        run(tiny.deepmac("label", *given, *words, "--workers", "0"))
        made.append(json.loads((tmp_path / f"{name}.json").read_text())["annotations"])
    assert made[0] == made[1] != made[2]

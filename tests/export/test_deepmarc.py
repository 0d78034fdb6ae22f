"""Deep-MARC's graphs: detection without shapes that depend on the picture, masks of given boxes."""

import json

import pytest
import torch

from deepmac.class_map import ClassMap
from deepmac.export import export_model
from deepmac.export.deepmarc_detect import StaticTwoStage
from deepmac.export.graphs import blobs
from deepmac.models.card import ModelCard
from deepmac.models.files import build_model
from deepmac.nn.backbones import IMAGENET

TINY = {
    "backbone": "resnet18",
    "pyramid_width": 16,
    "mask_head": "hourglass10",
    "num_init_channels": 4,
    "mask_size": 16,
    "head_channels": 32,
    "proposals": 30,
    "max_detections": 12,
}


@pytest.fixture(scope="module")
def make_marc():
    def make(**changes):
        torch.manual_seed(5)
        classes = ClassMap((7, 30, 31), ("ant", "bee", "cat"), frozenset({7}))
        card = ModelCard({**TINY, **changes}, IMAGENET, classes, image_size=64, system="deepmarc")
        model = build_model(card, source="the test").train()
        with torch.no_grad():
            for _ in range(20):  # batch norms as if trained
                model(blobs(2, 64, 64))
        model.roi_heads.box_predictor.cls_score.weight.data *= 8  # scores that differ
        return model.eval()

    return make


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.35, 0.9])
def test_detections__are_the_networks_own(make_marc, threshold):
    model = make_marc()
    model.roi_heads.score_thresh = threshold
    static = StaticTwoStage(model)
    counts = []
    for image, size in ((blobs(1, 64, 96), (64, 96)), (blobs(2, 128, 64)[1:], (101, 50))):
        true_sizes = torch.tensor([size])
        with torch.no_grad():
            stage = model(image)[-1]
            expected, got = model.detect(stage, true_sizes), static(stage, true_sizes)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other)
        counts.append(int((got.scores > 0).sum()))
    assert (max(counts) > 0) is (threshold < 0.9)


@pytest.mark.slow
def test_onnx__of_both_graphs(make_marc, tmp_path):
    model = make_marc(outer_boxes_scale=1.2)
    exported = export_model(model, tmp_path / "out", "onnx")
    assert sorted(exported.differences) == ["boxes.onnx", "detect.onnx"]
    assert max(exported.differences.values()) < 1e-3
    about = json.loads((tmp_path / "out/model.json").read_text())
    assert about["masks"]["frame_scale"] == 1.2
    assert about["graphs"]["boxes.onnx"]["inputs"]["boxes"]["shape"] == ["batch", "boxes", 4]
    assert about["graphs"]["detect.onnx"]["inputs"]["images"]["shape"][0] == 1
    assert not exported.notes  # sides are free

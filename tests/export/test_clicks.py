"""The graph of masks that clicks correct: the network's numbers, for any number of clicks."""

import json

import numpy as np
import pytest
import torch

from deepmac.export import export_model
from deepmac.export.graphs import BoxesGraph, ClicksGraph, blobs
from deepmac.export.onnx_format import OnnxRun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(make_model):
    model = make_model(click_head="hourglass10", click_channels=4, detector=False)
    with torch.no_grad():
        model.click_head.head.project_out.weight.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks") / "onnx"
    exported = export_model(model, folder, "onnx")
    assert sorted(exported.differences) == ["boxes.onnx", "clicks.onnx"]
    assert max(exported.differences.values()) < 1e-3
    return folder


@pytest.mark.parametrize(("batch", "count", "clicks"), [(1, 1, 1), (2, 3, 5), (1, 0, 2)])
def test_clicks_graph__is_the_network(model, folder, batch, count, clicks):
    generator = torch.Generator().manual_seed(2)
    images = blobs(batch, 64, 48)
    boxes = torch.rand(batch, count, 4, generator=generator) * 30
    boxes[..., 2:] += boxes[..., :2] + 4
    points = torch.rand(batch, count, clicks, 3, generator=generator) * 30
    points[..., 2] = (points[..., 2] > 15).float()
    points[:, 1:2] = torch.nan
    (masks,) = OnnxRun(folder / "clicks.onnx")({"images": images, "boxes": boxes, "points": points})
    with torch.no_grad():
        expected = ClicksGraph(model)(images, boxes, points)
        plain = BoxesGraph(model)(images, boxes)
    np.testing.assert_allclose(masks, expected.numpy(), atol=1e-3)
    torch.testing.assert_close(expected[:, 1:2], plain[:, 1:2])
    if count:
        assert (expected[:, 0] - plain[:, 0]).abs().max() > 0.01


def test_model_json__says_how_to_feed_it(folder):
    graphs = json.loads((folder / "model.json").read_text())["graphs"]
    shape = graphs["clicks.onnx"]["inputs"]["points"]["shape"]
    assert shape == ["batch", "boxes", "points", 3]

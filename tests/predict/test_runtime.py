"""A network whose backbone OpenVINO computes answers as torch's does."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from deepmac import Predictor, load_model
from deepmac.errors import UserError
from deepmac.predict.runtime import prepared_network
from networks import tiny_network

installed = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the package openvino is not installed"
)
BOXES = torch.tensor([[[3.0, 5, 40, 50], [0, 0, 64, 64]]])


def maps(stage) -> list[torch.Tensor]:
    return list(stage.values()) if isinstance(stage, dict) else [stage.features]


@installed
@pytest.mark.parametrize("make", [
    pytest.param(lambda: load_model("deepmac-lite"), id="deepmac-lite"),
    pytest.param(lambda: tiny_network("deepmarc"), id="deepmarc"),
])  # fmt: skip
def test_openvino__answers_as_torch_for_pictures_of_any_size_and_number(make) -> None:
    network = make()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = prepared_network(network, "32", "openvino")
    labels = torch.zeros(2, 2, dtype=torch.int64)
    with torch.inference_mode():
        for sides in ((64, 64), (128, 64), (64, 64)):
            images = torch.randint(0, 256, (2, 3, *sides), dtype=torch.uint8)
            stage, known = prepared.last_stage(images), network.last_stage(images)
            largest = max(float(wanted.abs().max()) for wanted in maps(known))
            for found, wanted in zip(maps(stage), maps(known), strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-5 * largest, rtol=0)
            masks, others = (
                one.mask_probabilities(those, BOXES.expand(2, -1, -1), labels=labels)
                for one, those in ((prepared, stage), (network, known))
            )
            # Random weights answer with maps in the hundreds, which masks make much of.
            torch.testing.assert_close(masks, others, atol=1e-4 if largest < 10 else 1e-3, rtol=0)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert prepared_network(prepared, "32", "openvino") is prepared
    assert "openvino_telemetry" not in sys.modules  # it reports to nobody


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:384])


@installed
def test_bfloat16__costs_what_it_costs_in_torch(picture: np.ndarray) -> None:
    boxes = np.array([[160.0, 10, 300, 300], [0, 0, 150, 384], [20, 60, 500, 384]])
    answers = []
    for precision, runtime in (("32", "torch"), ("bf16", "torch"), ("bf16", "openvino")):
        lite = load_model("deepmac-lite")
        predictor = Predictor(lite, image_size=512, precision=precision, runtime=runtime)
        predictor.set_image(picture)
        answers.append((predictor.predict_crops(boxes), predictor.predict(boxes, refine="none")))
    (wanted, masks), (torchs, narrow), (crops, other) = answers
    assert abs(crops - wanted).mean() < 1.5 * abs(torchs - wanted).mean() < 0.01

    def iou(found):  # the third box holds half of a person: a sixth of its cells are in doubt
        ours, theirs = np.asarray(found.masks), np.asarray(masks.masks)
        return (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2))

    assert (1 - iou(other) < 1.5 * (1 - iou(narrow)) + 0.005).all()
    assert iou(other)[:2].min() > 0.99


def test_missing_package__is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"needs the package openvino: pip install 'deepmac\[open"):
        Predictor(tiny_network(), runtime="openvino")


def test_wrong_runtime_or_copy__is_said() -> None:
    with pytest.raises(ValueError, match="runtime is torch, openvino, not 'onnx'"):
        prepared_network(tiny_network(), "32", "onnx")  # type: ignore[arg-type]


@installed
def test_cards_and_prepared_copies__are_refused() -> None:
    with pytest.raises(UserError, match="computes on processors, not on cuda: choose the cpu"):
        prepared_network(tiny_network(), "32", "openvino", runs_on=torch.device("cuda"))
    with pytest.raises(ValueError, match="was prepared for torch"):
        prepared_network(prepared_network(tiny_network()), "32", "openvino")


class OfOneSize(nn.Module):
    """A backbone that looks at the numbers of its picture's size, which a trace takes for fixed."""

    size_divisor = 32

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images[:, :, ::4, ::4] * float(images.shape[-1])]


@installed
def test_backbone_that_depends_on_its_tracing__is_refused() -> None:
    from deepmac.predict.openvino_backbone import OpenVinoBackbone

    with pytest.raises(UserError, match=r"cannot take this model's backbone .*depend on the size"):
        OpenVinoBackbone(OfOneSize(), "32")

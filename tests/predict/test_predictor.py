"""The predictor speaks the picture's pixels and the data set's category ids."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepmac import Predictor
from deepmac.class_map import ClassMap
from deepmac.errors import UserError
from deepmac.models.files import build_model
from deepmac.nn.deepmac import DeepMAC
from deepmac.predict.letterbox import letterbox
from networks import tiny_card, tiny_model

CARD = tiny_card(
    classes=ClassMap((7, 30, 31), ("ant", "bee", "cat"), frozenset({7})),
    backbone="hourglass_10",
    head_channels=16,
    max_detections=12,
)
BOXES = np.array([[10.0, 20.0, 100.0, 70.0], [0.0, 0.0, 120.0, 90.0], [30.0, 30.0, 31.5, 90.0]])


@pytest.fixture(scope="module")
def model() -> DeepMAC:
    return tiny_model(CARD)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.fixture
def predictor(model: DeepMAC, picture: np.ndarray) -> Predictor:
    predictor = Predictor(model)
    predictor.set_image(picture)
    return predictor


def test_predict_crops__equal_the_networks_own(
    predictor: Predictor, model: DeepMAC, picture: np.ndarray
) -> None:
    crops = predictor.predict_crops(BOXES)
    assert crops.shape == (3, 32, 32)
    assert crops.dtype == np.float32
    entry = letterbox(picture, 64)
    assert entry.true_size == (48, 64)
    scaled = BOXES * np.tile([64 / 120, 48 / 90], 2)
    with torch.no_grad():
        stage = model(entry.image)[-1]
        expected = model.mask_probabilities(stage, torch.tensor(scaled, dtype=torch.float32)[None])
    np.testing.assert_allclose(crops, expected[0].numpy(), atol=1e-5)


def test_predict__masks_lie_within_their_boxes(predictor: Predictor) -> None:
    predictor.threshold = 0.0  # every pixel of the box
    masks, scores = predictor.predict(torch.tensor(BOXES))
    assert masks.shape == (3, 90, 120)
    assert masks.dtype == np.bool_
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()
    for mask, (x0, y0, x1, y1) in zip(masks, BOXES.round().astype(int), strict=True):
        assert mask.sum() > 0
        mask[y0:y1, x0 : x1 + 1] = False
        assert not mask.any()


def test_predict__score_is_the_overlap_that_the_probabilities_promise(
    predictor: Predictor,
) -> None:
    crops = predictor.predict_crops(BOXES).astype(float)
    _, scores = predictor.predict(BOXES)
    for crop, score in zip(crops, scores, strict=True):
        inside = crop > predictor.threshold
        union = inside.sum() + crop[~inside].sum()
        assert score == pytest.approx(crop[inside].sum() / union if inside.any() else 0.0, abs=1e-6)


def test_threshold__is_the_models_own_unless_given(predictor: Predictor, picture) -> None:
    crops = predictor.predict_crops(BOXES)
    low, high = float(crops.min()) - 1e-3, float(crops.max()) + 1e-3  # all of a box, nothing
    for own, given, whole in ((low, None, True), (high, None, False), (high, low, True)):
        network = build_model(replace(CARD, mask_threshold=own), source="the test")
        network.load_state_dict(predictor.model.state_dict())
        other = Predictor(network, threshold=given)
        other.set_image(picture)
        masks, _ = other.predict(BOXES)
        assert masks.any(axis=(1, 2)).all() == masks.any() == whole


def test_predict__of_no_boxes_gives_no_masks(predictor: Predictor) -> None:
    masks, scores = predictor.predict([])
    assert masks.shape == (0, 90, 120)
    assert scores.shape == (0,)
    assert predictor.predict_crops(np.zeros((0, 4))).shape == (0, 32, 32)


def test_detect__speaks_category_ids_and_pixels(predictor: Predictor) -> None:
    found = predictor.detect()
    count = len(found.scores)
    assert 0 < count <= 12
    assert found.boxes.shape == (count, 4)
    assert found.masks.shape == (count, 90, 120)
    assert set(found.labels.tolist()) <= {7, 30, 31}
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [120, 90, 120, 90]).all()
    best = predictor.detect(min_score=float(found.scores[2]))
    assert len(best.scores) >= 3
    assert (best.scores >= found.scores[2]).all()
    assert predictor.detect(min_score=2.0).masks.shape == (0, 90, 120)


def test_detect__without_a_class_map_gives_slots(picture: np.ndarray) -> None:
    torch.manual_seed(0)
    bare = Predictor(DeepMAC(num_classes=3, **CARD.network), image_size=64)
    bare.set_image(picture)
    assert set(bare.detect().labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 2)])
def test_set_image__takes_pictures_of_any_size(model: DeepMAC, size: tuple[int, int]) -> None:
    predictor = Predictor(model)
    predictor.set_image(np.full((*size, 3), 90, dtype=np.uint8))
    masks, _ = predictor.predict([[0, 0, size[1], size[0]]])
    assert masks.shape == (1, *size)
    assert predictor.detect().masks.shape[1:] == size


def test_predictor__refuses_what_is_no_picture_and_no_box(
    model: DeepMAC, picture: np.ndarray
) -> None:
    predictor = Predictor(model)
    with pytest.raises(UserError, match="no picture was set"):
        predictor.predict(BOXES)
    with pytest.raises(UserError, match="no picture was set"):
        predictor.detect()
    for wrong in (picture.astype(np.float32), picture[..., 0], picture[:0]):
        with pytest.raises(UserError, match=r"a picture must be \(H, W, 3\) uint8 RGB"):
            predictor.set_image(wrong)
    predictor.set_image(picture)
    for wrong_boxes in ([[1, 2, 3]], [[0, 0, np.nan, 3]], [1, 2, 3, 4]):
        with pytest.raises(UserError, match=r"boxes must be \(N, 4\) finite numbers|a NaN"):
            predictor.predict(wrong_boxes)


def test_import_deepmac__does_not_import_torch() -> None:
    code = (
        "import sys, deepmac; assert 'torch' not in sys.modules; deepmac.__version__; "
        "assert {'DeepMAC', 'Predictor', 'load_model'} <= set(dir(deepmac)); "
        "from deepmac import DeepMAC; assert 'pytorch_lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    import deepmac

    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        deepmac.Predicter  # noqa: B018


def test_set_image__takes_arrays_tensors_pil_images_and_paths_alike(
    model: DeepMAC, picture: np.ndarray, tmp_path
) -> None:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    predictor = Predictor(model)
    predictor.set_image(picture)
    expected = predictor.predict_crops(BOXES)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    for same in (tensor, tensor.float() / 255, Image.fromarray(picture), path, str(path)):
        predictor.set_image(same)
        np.testing.assert_array_equal(predictor.predict_crops(BOXES), expected)
    for wrong in (tensor[:1], tensor.float(), tensor.float() / 255 - 1):
        with pytest.raises(UserError, match="tensor must"):
            predictor.set_image(wrong)
    with pytest.raises(UserError, match="does not exist"):
        predictor.set_image(tmp_path / "nothing.png")


def test_set_image__turns_a_picture_upright(model: DeepMAC, picture: np.ndarray, tmp_path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(picture).save(path, exif=exif)
    predictor = Predictor(model)
    for turned in (path, Image.open(path)):
        predictor.set_image(turned)
        assert predictor.predict(BOXES[:1]).image.shape == (120, 90, 3)


def test_result__unpacks_and_becomes_coco(predictor: Predictor) -> None:
    from pycocotools import mask as coco_mask

    result = predictor.predict(BOXES)
    masks, scores = result
    assert len(result) == 2 and result.masks is masks and result[1] is scores
    entries = result.to_coco(image_id=7)
    assert [e["bbox"] for e in entries] == [[10, 20, 90, 50], [0, 0, 120, 90], [30, 30, 1.5, 60]]
    for entry, mask, score in zip(entries, masks, scores, strict=True):
        assert (coco_mask.decode(entry["segmentation"]).astype(bool) == mask).all()
        assert entry["score"] == pytest.approx(score) and entry["image_id"] == 7
    found = predictor.detect()
    boxes, labels, _, _ = found
    assert [e["category_id"] for e in found.to_coco()] == labels.tolist()
    assert len(boxes) == len(found.to_coco())


def test_result__plots_itself_at_the_pictures_size(predictor: Predictor, picture) -> None:
    for result in (predictor.predict(BOXES), predictor.detect(), predictor.predict([])):
        drawn = result.plot()
        assert drawn.size == (120, 90)
        changed = (np.asarray(drawn) != picture).any()
        assert changed == bool(len(result.boxes))


def test_result__becomes_supervision_detections(predictor: Predictor, monkeypatch) -> None:
    supervision = pytest.importorskip("supervision")
    result = predictor.predict(BOXES)
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 3
    np.testing.assert_array_equal(detections.mask, result.masks)
    np.testing.assert_allclose(detections.xyxy, BOXES)
    found = predictor.detect()
    assert found.to_supervision().class_id.tolist() == found.labels.tolist()
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'deepmac\[viz\]'"):
        result.to_supervision()

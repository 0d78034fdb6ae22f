"""From a network's answer to masks in a picture's pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deepmac.errors import UserError
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict import results
from deepmac.predict.masks import BOXES_PER_STEP, PictureMasks, crop_probabilities, mask_scores
from deepmac.predict.predictor import Predictor
from networks import tiny_network
from reference.original_pixels import paste_probabilities


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    return tiny_network(num_classes=2)


def test_crop_probabilities__of_many_boxes_are_those_of_each(network: SegmentationNetwork) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    corner = torch.rand(2, BOXES_PER_STEP + 9, 2) * 30
    boxes = torch.cat([corner, corner + 20], dim=2)
    valid = torch.rand(2, boxes.shape[1]) > 0.3
    with torch.no_grad():
        stage = network.last_stage(images)
        crops = crop_probabilities(network, stage, boxes, valid)
        whole = network.mask_probabilities(network(images)[-1], boxes)
        assert crop_probabilities(network, stage, boxes[:, :0]).shape == (2, 0, 32, 32)
    torch.testing.assert_close(crops[valid], whole[valid], atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(["roi_align", "corner_aligned"]))
def test_masks_and_run_lengths__are_what_lies_above_the_threshold(seed: int, rule) -> None:
    """Leaving out early what cannot be above it changes nothing."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-20, 50, (3, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.5, 60, (3, 2))], axis=1)
    crops = (rng.random((3, 8, 8)) ** rng.integers(1, 9)).astype(np.float32)
    masks = PictureMasks(crops, boxes, mask_scores(crops), (40, 50), float(rng.uniform(0, 1)), rule)
    whole = paste_probabilities(crops, boxes, 40, 50, rule)
    for row, (mask, rle) in enumerate(zip(map(masks.mask, range(3)), masks.rles(), strict=True)):
        clear = abs(whole[row] - masks.threshold) > 1e-6
        np.testing.assert_array_equal(mask[clear], (whole[row] > masks.threshold)[clear])
        np.testing.assert_array_equal(coco_mask.decode(rle)[clear], mask[clear])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_not_finite__are_one_sentence(
    network: SegmentationNetwork, bad: float
) -> None:
    crops = np.full((1, 8, 8), bad, dtype=np.float32)
    with pytest.raises(UserError, match=r"the model's answer for a\.jpg is not finite"):
        PictureMasks.of(
            network, crops, np.array([[0.0, 0, 9, 9]]), (20, 20), threshold=0.5, about="a.jpg"
        )


def test_mask_scores__lie_in_0_to_1_and_know_certainty() -> None:
    crops = np.zeros((3, 4, 4), dtype=np.float32)
    crops[1, :2] = 1
    crops[2] = 0.6
    assert mask_scores(crops).tolist() == pytest.approx([0, 1, 0.6])


def test_predict__keeps_no_full_size_mask_unless_asked(
    network: SegmentationNetwork, monkeypatch
) -> None:
    predictor = Predictor(network, image_size=64)
    predictor.set_image(np.random.default_rng(0).integers(0, 255, (60, 64, 3), dtype=np.uint8))
    boxes = [[0, 0, 30, 30], [10, 10, 60, 50], [5, 5, 64, 60]]
    whole, _ = predictor.predict(boxes)
    assert isinstance(whole, np.ndarray)
    monkeypatch.setattr(results, "MOST_BYTES", 100)
    lazy, scores = found = predictor.predict(boxes)
    assert (lazy.shape, lazy.dtype, len(lazy)) == (whole.shape, whole.dtype, 3)
    np.testing.assert_array_equal(lazy, whole)
    np.testing.assert_array_equal(lazy[-1], whole[-1])
    np.testing.assert_array_equal(lazy[1:], whole[1:])
    np.testing.assert_array_equal(lazy[scores > 2], whole[:0])
    np.testing.assert_array_equal(list(lazy), whole)
    decoded = [coco_mask.decode(rle) for rle in found.rles]
    np.testing.assert_array_equal(decoded, whole)
    assert [e["segmentation"]["counts"] for e in found.to_coco()] == [
        rle["counts"].decode() for rle in found.rles
    ]
    assert found.plot().size == (64, 60)
    with pytest.raises(IndexError):
        lazy[3]


@pytest.mark.parametrize("huge", [1e9, 1e39, 1e300])
def test_boxes_far_beyond_the_picture__are_the_picture(
    network: SegmentationNetwork, huge: float
) -> None:
    predictor = Predictor(network, image_size=64)
    predictor.set_image(np.full((60, 64, 3), 90, dtype=np.uint8))
    masks, scores = predictor.predict([[0, 0, huge, huge], [-huge, -huge, huge, huge]])
    assert masks.shape == (2, 60, 64)
    assert np.isfinite(scores).all()


def test_diverged_weights__are_one_sentence(network: SegmentationNetwork) -> None:
    import copy

    broken = copy.deepcopy(network)
    broken.mask_head.project_out.bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match=r"weights are not finite .*project_out\.bias"):
        Predictor(broken, image_size=64)

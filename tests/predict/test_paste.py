"""Pasting masks: exact pixels, the original's rule, and run lengths equal to pycocotools'."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deepmac.nn.roi_crop import separable_roi_align
from deepmac.predict.paste import (
    PasteRule,
    mask_to_rle,
    masks_to_rles,
    paste_mask,
    paste_masks,
)
from reference.original_pixels import paste_probabilities

HEIGHT, WIDTH = 24, 31

coordinate = st.floats(-12.0, 45.0, allow_nan=False)
any_box = st.tuples(coordinate, coordinate, coordinate, coordinate)


def blob(size: int, seed: int = 0) -> np.ndarray:
    """A soft shape with holes, (size, size) float32 in [0, 1]."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.random((1, 1, 5, 5), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return fine[0, 0].clamp(0, 1).numpy()


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


@settings(max_examples=100, deadline=None)
@given(box=any_box, size=st.sampled_from([1, 2, 14, 32]))
@example(box=(3.0, 4.0, 9.0, 11.0), size=32)
@example(box=(-5.0, -5.0, 60.0, 60.0), size=32)
@example(box=(2.5, 3.5, 8.5, 9.5), size=32)
@example(box=(9.0, 9.0, 3.0, 3.0), size=32)
def test_paste__of_a_full_mask_is_the_pixels_whose_centres_lie_in_the_box(
    box: tuple[float, float, float, float], size: int
) -> None:
    x_start, y_start, x_end, y_end = box
    y, x = np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5
    expected = np.outer((y >= y_start) & (y < y_end), (x >= x_start) & (x < x_end))
    pasted = paste_mask(np.ones((size, size), dtype=np.float32), box, HEIGHT, WIDTH)
    assert pasted.dtype == np.bool_ and np.array_equal(pasted, expected)


def test_paste__of_a_box_smaller_than_a_pixel_is_its_pixel_or_nothing() -> None:
    ones = np.ones((32, 32))
    assert paste_mask(ones, [4.4, 7.4, 4.6, 7.6], HEIGHT, WIDTH).sum() == 1
    assert paste_mask(ones, [4.4, 7.4, 4.6, 7.6], HEIGHT, WIDTH)[7, 4]
    assert not paste_mask(ones, [4.6, 7.6, 4.9, 7.9], HEIGHT, WIDTH).any()
    assert not paste_mask(ones, [4.5, 7.5, 4.5, 7.5], HEIGHT, WIDTH).any()


def test_paste__interpolates_between_cell_centres_and_holds_the_border() -> None:
    probabilities = np.array([[0.0, 1.0], [0.0, 1.0]])
    pasted = paste_probabilities([probabilities], [[2, 0, 10, 4]], 4, 12)[0]
    expected = [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 0, 0]
    assert np.allclose(pasted, np.tile(expected, (4, 1)), atol=1e-6)
    assert np.array_equal(paste_masks([probabilities], [[2, 0, 10, 4]], 4, 12)[0], pasted > 0.5)


@pytest.mark.parametrize(
    "box", [(40.0, 30.0, 200.0, 180.0), (40.3, 30.8, 111.1, 170.4), (-50.0, 20.0, 230.0, 190.0)]
)
def test_crop_then_paste__returns_smooth_shapes(box: tuple[float, float, float, float]) -> None:
    height, width = 200, 240
    y, x = np.mgrid[:height, :width] + 0.5
    x_start, y_start, x_end, y_end = box
    across = (x - (x_start + x_end) / 2) / (x_end - x_start)
    down = (y - (y_start + y_end) / 2) / (y_end - y_start)
    angle = np.arctan2(down, across)
    shape = np.hypot(across, down) < 0.4 + 0.08 * np.cos(5 * angle)
    crop = separable_roi_align(
        torch.from_numpy(shape)[None, None].float(), torch.tensor([[box]]), 32
    )
    pasted = paste_mask(crop[0, 0, 0], box, height, width)
    assert (pasted & shape).sum() / (pasted | shape).sum() > 0.95


@settings(max_examples=100, deadline=None)
@given(
    boxes=st.lists(any_box, min_size=1, max_size=4),
    seed=st.integers(0, 50),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    rule=st.sampled_from(["roi_align", "corner_aligned"]),
)
@example(boxes=[(0.0, 0.0, 31.0, 24.0)], seed=0, threshold=0.0, rule="roi_align")
@example(boxes=[(4.0, -9.0, 20.0, 40.0)], seed=3, threshold=0.5, rule="roi_align")
def test_masks_to_rles__equal_pycocotools_encoding_of_the_pasted_masks(
    boxes: list[tuple[float, float, float, float]], seed: int, threshold: float, rule: PasteRule
) -> None:
    probabilities = np.stack([blob(32, seed + i) for i in range(len(boxes))])
    rles = masks_to_rles(probabilities, boxes, HEIGHT, WIDTH, threshold, rule)
    masks = paste_masks(probabilities, boxes, HEIGHT, WIDTH, threshold, rule)
    assert rles == [encoded(mask) for mask in masks]


def test_masks_to_rles__joins_columns_that_are_full() -> None:
    ones = np.ones((1, 8, 8), dtype=np.float32)
    whole = masks_to_rles(ones, [[0, 0, WIDTH, HEIGHT]], HEIGHT, WIDTH)
    assert whole == [encoded(np.ones((HEIGHT, WIDTH)))]
    assert masks_to_rles(ones, [[90, 90, 99, 99]], HEIGHT, WIDTH) == [
        encoded(np.zeros((HEIGHT, WIDTH)))
    ]


def test_masks_to_rles__of_nothing_is_nothing() -> None:
    assert masks_to_rles(np.zeros((0, 32, 32)), np.zeros((0, 4)), HEIGHT, WIDTH) == []
    assert paste_masks(torch.zeros(0, 32, 32), torch.zeros(0, 4), 5, 6).shape == (0, 5, 6)


def test_mask_to_rle__is_pycocotools_encoding() -> None:
    mask = blob(32) > 0.5
    assert mask_to_rle(mask) == mask_to_rle(torch.from_numpy(mask)) == encoded(mask)


def test_paste__takes_half_precision_tensors_with_gradient_as_arrays() -> None:
    mask = torch.from_numpy(blob(32)).to(torch.bfloat16).requires_grad_()
    box = torch.tensor([2.0, 3.0, 25.0, 20.0])
    pasted = paste_mask(mask, box, HEIGHT, WIDTH)
    expected = paste_mask(mask.detach().float().numpy(), box.numpy(), HEIGHT, WIDTH)
    assert np.array_equal(pasted, expected)


def test_paste__refuses_shapes_and_rules_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"masks \(N, S, S\) and boxes \(N, 4\)"):
        paste_masks(np.zeros((2, 8, 8)), np.zeros((3, 4)), 9, 9)
    with pytest.raises(ValueError, match="paste rule 'nearest' is unknown"):
        paste_mask(np.zeros((8, 8)), [0, 0, 1, 1], 9, 9, rule="nearest")  # type: ignore[arg-type]


def test_corner_aligned__pastes_as_the_original(reference_file) -> None:
    reference = np.load(reference_file("crop.npz"))
    expected = reference["pasted"]
    height, width = expected.shape[1:]
    boxes = reference["paste_boxes"][:, [1, 0, 3, 2]] * np.array([width, height, width, height])
    probabilities = reference["paste_masks"]
    pasted = paste_probabilities(probabilities, boxes, height, width, "corner_aligned")
    assert np.abs(pasted - expected).max() <= 1e-4
    # Which pixels lie in the box is decided by float32 rounding.
    assert np.array_equal(pasted != 0, expected != 0)
    masks = paste_masks(probabilities, boxes, height, width, 0.5, "corner_aligned")
    assert np.array_equal(masks, expected > 0.5)


def test_corner_aligned__on_an_image_of_one_pixel_samples_its_middle() -> None:
    ramp = np.linspace(0, 1, 5, dtype=np.float32)[None, None].repeat(5, axis=1)
    assert paste_probabilities(ramp, [[0, 0, 1, 1]], 1, 1, "corner_aligned").item() == 0.5

"""IoU and Boundary IoU of masks, and the filled box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from deepmac.evaluation.mask_quality import (
    boundary_width,
    filled_box,
    filled_ellipse,
    inner_boundary,
    mask_quality,
)


def encode(mask: np.ndarray) -> dict:
    return mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))


def blob(height: int, width: int, seed: int) -> np.ndarray:
    """A few overlapping ellipses, some of them cut by the border."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(generator.integers(0, 4)):
        cy, cx = generator.uniform(0, height), generator.uniform(0, width)
        ry, rx = generator.uniform(0.5, 0.5 + np.array([height, width]) / 2)
        mask |= ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
    return mask


def eroded_pixel_by_pixel(mask: np.ndarray, times: int) -> np.ndarray:
    """The paper's definition: a 3x3 erosion with a border of zeros, repeated."""
    for _ in range(times):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        mask = np.logical_and.reduce(shifts)
    return mask


def iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


masks = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10**6))


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(0, 10**6), st.floats(0.005, 0.3))
def test_mask_quality__equals_the_definition_pixel_by_pixel(
    spec: tuple[int, int, int], other_seed: int, ratio: float
) -> None:
    height, width, seed = spec
    first, second = blob(height, width, seed), blob(height, width, other_seed)
    distance = max(1, round(ratio * np.hypot(height, width)))
    bands = [mask & ~eroded_pixel_by_pixel(mask, distance) for mask in (first, second)]
    quality = mask_quality(encode(first), encode(second), dilation_ratio=ratio)
    assert quality.iou == pytest.approx(iou(first, second), abs=1e-12)
    assert quality.boundary_iou == pytest.approx(iou(*bands), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(masks, st.integers(1, 8))
def test_inner_boundary__is_what_repeated_erosion_removes(
    spec: tuple[int, int, int], distance: int
) -> None:
    mask = blob(*spec)
    expected = mask & ~eroded_pixel_by_pixel(mask, distance)
    np.testing.assert_array_equal(inner_boundary(mask, distance), expected)


def test_mask_quality__is_one_for_equal_and_zero_for_apart_or_empty_masks() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:12, 4:20] = True
    empty, apart = np.zeros_like(mask), np.roll(mask, 10, axis=0) & ~mask
    same = mask_quality(encode(mask), encode(mask))
    assert (same.iou, same.boundary_iou) == (1.0, 1.0)
    for other in (empty, apart):
        quality = mask_quality(encode(other), encode(mask))
        assert (quality.iou, quality.boundary_iou) == (0.0, 0.0)
    assert mask_quality(encode(empty), encode(empty)).iou == 0.0


def test_mask_quality__refuses_masks_of_different_size() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        mask_quality(encode(np.ones((4, 5), bool)), encode(np.ones((5, 4), bool)))


def test_boundary_width__is_two_percent_of_the_diagonal_and_at_least_one() -> None:
    assert boundary_width(480, 640) == 16
    assert boundary_width(10, 10) == 1


coordinate = st.floats(-20, 70)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.tuples(*[coordinate] * 4))
def test_filled_box__holds_the_pixels_whose_centre_lies_in_the_box(
    height: int, width: int, box: tuple[float, float, float, float]
) -> None:
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    rle = filled_box(box, height, width)
    np.testing.assert_array_equal(mask_utils.decode(rle).astype(bool), inside)
    assert mask_utils.area(rle) == inside.sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.floats(0, 9), st.floats(0, 9))
def test_filled_ellipse__lies_in_its_box_and_has_its_area(
    height: int, width: int, x0: float, y0: float
) -> None:
    box = (x0, y0, width - 1.5, height - 2.25)
    ellipse, whole = filled_ellipse(box, height, width), filled_box(box, height, width)
    assert mask_utils.area(mask_utils.merge([ellipse, whole], intersect=True)) == mask_utils.area(
        ellipse
    )
    ideal = np.pi / 4 * (box[2] - box[0]) * (box[3] - box[1])
    assert abs(mask_utils.area(ellipse) - ideal) < 2 * (height + width) ** 0.5 + 0.02 * ideal
    turned = mask_utils.decode(filled_ellipse((y0, x0, box[3], box[2]), width, height))
    np.testing.assert_array_equal(mask_utils.decode(ellipse), turned.T)


def test_filled_ellipse__of_a_box_without_an_inside_is_empty() -> None:
    assert mask_utils.area(filled_ellipse((3, 3, 3, 9), 20, 20)) == 0
    assert mask_utils.area(filled_ellipse((30, 3, 40, 9), 20, 20)) == 0

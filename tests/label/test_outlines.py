"""Parts, holes and outlines of masks, checked against the slow and obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from deepmac.label.masks import polygons
from deepmac.label.masks.components import fill_holes, label_components, largest_component
from deepmac.label.masks.polygons import (
    coco_polygons,
    joined,
    mask_polygons,
    ring_area,
    simplify,
    trace,
)
from deepmac.predict.paste import mask_to_rle

small_masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


def flooded(mask: np.ndarray, diagonal: bool) -> tuple[np.ndarray, int]:
    """Components pixel by pixel, in the order of columns."""
    labels, count = np.zeros(mask.shape, int), 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if diagonal else []
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] and not labels[y, x]:
                count += 1
                stack = [(y, x)]
                while stack:
                    a, b = stack.pop()
                    inside = 0 <= a < mask.shape[0] and 0 <= b < mask.shape[1]
                    if inside and mask[a, b] and not labels[a, b]:
                        labels[a, b] = count
                        stack += [(a + dy, b + dx) for dy, dx in steps]
    return labels, count


def drawn(rings: list, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape
    if not rings:
        return np.zeros(shape, bool)
    merged = coco_mask.merge(coco_mask.frPyObjects(coco_polygons(rings), height, width))
    return coco_mask.decode(merged).astype(bool)


@settings(max_examples=150, deadline=None)
@given(small_masks, st.booleans())
def test_components__equal_a_flood_fill(mask: np.ndarray, diagonal: bool) -> None:
    labels, count = label_components(mask, diagonal=diagonal)
    expected, number = flooded(mask, diagonal)
    assert count == number
    assert (labels == expected).all()


@settings(max_examples=100, deadline=None)
@given(small_masks)
def test_largest_component_and_holes__equal_a_flood_fill(mask: np.ndarray) -> None:
    labels, count = flooded(mask, True)
    largest = largest_component(mask)
    if count:
        assert largest.sum() == np.bincount(labels[mask]).max()
        assert (largest & ~mask).sum() == 0
    outside, _ = flooded(np.pad(~mask, 1, constant_values=True), False)
    assert (fill_holes(mask) == (outside != outside[0, 0])[1:-1, 1:-1]).all()


@settings(max_examples=200, deadline=None)
@given(small_masks)
def test_exact_outlines__rasterise_to_the_very_mask(mask: np.ndarray) -> None:
    rings = trace(mask)
    assert sum(ring_area(ring) for ring in rings) == mask.sum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polygons, "TOLERANCES", (0.0,))
        found = mask_polygons(mask_to_rle(mask))
    assert (drawn(found, mask.shape) == mask).all()
    assert len(found) == label_components(mask, diagonal=False)[1]
    if found:
        assert (drawn([joined(found)], mask.shape) == mask).all()


def test_polygons__of_a_ring_with_an_island_keep_both_holes_and_few_points() -> None:
    y, x = np.mgrid[:200, :220]
    radius = np.hypot(x - 100, y - 100)
    mask = (radius < 90) & (radius > 40) | (radius < 15) | (x > 205) & (y < 30)
    mask &= np.hypot(x - 100, y - 30) > 12
    found = mask_polygons(mask_to_rle(mask))
    again = drawn(found, mask.shape)
    assert (again & mask).sum() / (again | mask).sum() > 0.98
    assert not again[100, 130] and not again[30, 100] and again[100, 100] and again[5, 210]
    assert len(found) == 3
    assert sum(map(len, found)) < 200


def test_simplify__keeps_corners_and_drops_what_lies_between() -> None:
    square = np.array([[0, 0], [5, 0.2], [10, 0], [10, 10], [4, 9.9], [0, 10]], dtype=float)
    assert simplify(square, 0.5).tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    assert simplify(square, 0.0) is square


def test_empty_mask__has_no_polygons() -> None:
    assert mask_polygons(mask_to_rle(np.zeros((5, 7), bool))) == []

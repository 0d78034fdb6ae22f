"""Refined masks follow the picture's edges, and lose specks and holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deepmac.label.masks.components import label_components
from deepmac.nn.edge_head import color_evidence
from deepmac.nn.roi_crop import roi_crop
from deepmac.predict.refine import (
    _component_sizes,
    refine_edges,
    sample_picture,
    without_specks,
)

FRAME = torch.tensor([[20.0, 10.0, 84.0, 74.0]])


def disc(size: int = 96, radius: float = 22.3) -> torch.Tensor:
    """(H, W) bool, centred in FRAME."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return (x - 52) ** 2 + (y - 42) ** 2 < radius**2


def painted(mask: torch.Tensor) -> torch.Tensor:
    """(3, H, W) uint8: a red object on grass, with some noise."""
    noise = torch.randint(0, 25, (3, *mask.shape), generator=torch.Generator().manual_seed(0))
    red, green = torch.tensor([200, 40, 30]), torch.tensor([60, 120, 40])
    colors = torch.where(mask, red[:, None, None], green[:, None, None])
    return (colors + noise).to(torch.uint8)


def over_frame(mask: torch.Tensor, cells: int) -> torch.Tensor:
    """(1, cells, cells): the mask's share of each cell of FRAME."""
    x0, y0, x1, y1 = FRAME[0].int().tolist()
    window = mask[y0:y1, x0:x1].float()[None, None]
    return F.interpolate(window, size=(cells, cells), mode="area")[0]


def iou(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_a_blurred_mask_takes_the_edge_that_the_picture_has():
    mask = disc()
    blurred = F.avg_pool2d(over_frame(mask, 16)[None], 5, 1, 2)[0]
    refined = refine_edges(blurred, FRAME, painted(mask), threshold=0.5, grid=64)
    assert refined.shape == (1, 64, 64)
    truth = over_frame(mask, 64) > 0.5
    before = iou(F.interpolate(blurred[None], size=(64, 64), mode="bilinear")[0] > 0.5, truth)
    after = iou(refined > 0.5, truth)
    assert before < 0.95
    assert after > 0.99


def test_a_picture_of_one_colour_changes_little():
    blurred = F.avg_pool2d(over_frame(disc(), 16)[None], 5, 1, 2)[0]
    plain = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    refined = refine_edges(blurred, FRAME, plain, threshold=0.5, grid=64)
    before = F.interpolate(blurred[None], size=(64, 64), mode="bilinear")[0] > 0.5
    assert iou(refined > 0.5, before) > 0.9


def test_boxes_together_give_what_each_gives_alone():
    picture = painted(disc())
    frames = torch.tensor([[20.0, 10, 84, 74], [-5.5, 3.25, 40, 90], [50, 50, 53, 52]])
    crops = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    together = refine_edges(crops, frames, picture, threshold=0.4, grid=32)
    for i in range(3):
        alone = refine_edges(crops[i : i + 1], frames[i : i + 1], picture, threshold=0.4, grid=32)
        assert torch.allclose(together[i], alone[0], atol=1e-5)
    assert refine_edges(crops[:0], frames[:0], picture, threshold=0.4).shape == (0, 128, 128)


def test_probabilities_stay_probabilities():
    crops = (torch.rand(4, 16, 16) > 0.5).float()
    frames = torch.tensor([[0.0, 0, 96, 96]]).expand(4, 4)
    refined = refine_edges(crops, frames, painted(disc()), threshold=0.5, grid=64)
    assert refined.dtype == torch.float32
    assert refined.isfinite().all()
    assert refined.min() >= 0
    assert refined.max() <= 1


def test_the_picture_is_sampled_as_the_networks_crops_are():
    picture = torch.randint(0, 255, (3, 40, 50), dtype=torch.uint8)
    frames = torch.tensor([[5.0, 6.5, 21.0, 22.5], [0.0, 0.0, 16.0, 16.0]])
    ours = sample_picture(picture, frames, 16)
    theirs = roi_crop(picture[None].float() / 255, frames[None], 16, sampling_ratio=1)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_coarse_cells_average_the_pixels_that_they_cover():
    checker = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8)
    cut = sample_picture(checker.expand(3, 64, 64), torch.tensor([[0.0, 0, 64, 64]]), 8)
    assert (cut[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.02


def test_frames_beyond_the_picture_see_its_border():
    picture = painted(disc())
    cut = sample_picture(picture, torch.tensor([[-9.0, -9, -5, -5], [95, 95, 99, 99]]), 4)
    corners = picture[:, [0, -1], [0, -1]].T.float() / 255
    assert torch.allclose(cut[0], corners[0][:, None, None].expand(3, 4, 4))
    assert torch.allclose(cut[1, :, -1, -1], corners[1])


def test_evidence_is_for_the_colours_of_the_object():
    mask = over_frame(disc(), 64)
    guide = sample_picture(painted(disc()), FRAME, 64)
    evidence = color_evidence(guide, 0.2 + 0.6 * mask)
    assert evidence[mask > 0.99].mean() > 1
    assert evidence[mask < 0.01].mean() < -1


def test_specks_go_and_parts_stay():
    probabilities = torch.zeros(1, 32, 32)
    probabilities[0, 4:24, 4:16] = 0.9  # the object
    probabilities[0, 10, 10] = 0.1  # a hole
    probabilities[0, 4:24, 20:24] = 0.9  # another part of it
    probabilities[0, 30, 30] = 0.8  # a speck
    clean = without_specks(probabilities, 0.4)
    assert clean[0, 10, 10] > 0.4
    assert clean[0, 30, 30] <= 0.4
    assert (clean[0, 4:24, 20:24] == 0.9).all()
    same = torch.ones(1, 32, 32, dtype=torch.bool)
    same[0, 10, 10] = same[0, 30, 30] = False
    assert torch.equal(clean[same], probabilities[same])


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 10_000),
    st.floats(0.1, 0.9),
    st.booleans(),
)
def test_component_sizes_are_those_of_the_runs(height, width, seed, share, diagonal):
    drawn = np.random.default_rng(seed).random((2, height, width)) < share
    masks = torch.from_numpy(drawn)
    sizes = _component_sizes(masks, masks.long(), diagonal=diagonal)
    for mask, ours in zip(drawn, sizes.numpy(), strict=True):
        labels, _ = label_components(mask, diagonal=diagonal)
        counted = np.bincount(labels.ravel())
        assert np.array_equal(ours, np.where(mask, counted[labels], 0))


def test_specks_of_one_cell_go_on_a_fine_grid_too():
    fine = torch.zeros(1, 128, 128)
    fine[0, 20:100, 20:60] = 0.9
    fine[0, 51, 33] = fine[0, 60, 40] = 0.0  # pinholes
    fine[0, 110, 111] = 0.9
    clean = without_specks(fine, 0.4)
    assert (clean[0, 20:100, 20:60] > 0.4).all()
    assert (clean > 0.4).sum() == 80 * 40


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_stay(value):
    assert (without_specks(torch.full((2, 16, 16), value), 0.4) == value).all()

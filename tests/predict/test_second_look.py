"""Refining as a setting of predictors and labelling; more looks agree with the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepmac import Predictor
from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError
from deepmac.losses.grids import inside_boxes
from deepmac.models.card import ModelCard
from deepmac.predict.refine import (
    COARSE,
    FEW_PIXELS,
    GRID,
    refine_edges,
    resize_cells,
)
from deepmac.predict.second_look import closer, mirrored
from networks import tiny_card, tiny_model

CARD = tiny_card(
    classes=ClassMap((7,), ("ant",), frozenset({7})),
    about={"refine": "edges"},
    box_margin=0.1,
    detector=False,
)
BOXES = np.array([[10.0, 20.0, 100.0, 70.0], [30.0, 30.0, 50.0, 50.0]])


@pytest.fixture(scope="module")
def model():
    return tiny_model(CARD)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    smooth = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return smooth.repeat(10, 0).repeat(10, 1)


def predicted(model, picture, **settings):
    predictor = Predictor(model, **settings)
    predictor.set_image(picture)
    return predictor, predictor.predict(BOXES).masks


def test_the_card_says_how_masks_are_refined_unless_told_otherwise(model, picture):
    assert ModelCard.from_dict(CARD.to_dict(), source="x") == CARD
    assert "refine" not in replace(CARD, refine="none").to_dict()  # older versions read these
    predictor, own = predicted(model, picture)
    assert predictor.refine == "edges"
    _, edges = predicted(model, picture, refine="edges")
    _, plain = predicted(model, picture, refine="none")
    assert np.array_equal(own, edges)
    assert not np.array_equal(own, plain)
    with pytest.raises(ConfigError, match="no usable model"):
        ModelCard.from_dict({**CARD.to_dict(), "refine": "sharp"}, source="x")


def test_refined_masks_end_at_their_boxes_and_others_at_their_frames(model, picture):
    for refine, margin in (("edges", 1.0), ("full", 1.0), ("none", 9.0)):
        predictor, _ = predicted(model, picture, refine=refine)
        predictor.threshold = 1e-6
        for mask, (x0, y0, x1, y1) in zip(predictor.predict(BOXES).masks, BOXES, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert rows[0] >= y0 - margin
            assert rows[-1] < y1 + margin
            assert columns[0] >= x0 - margin
            assert columns[-1] < x1 + margin


def test_scores_are_the_networks_whatever_the_refinement(model, picture):
    plain, _ = predicted(model, picture, refine="none")
    edges, _ = predicted(model, picture, refine="edges")
    assert np.array_equal(plain.predict(BOXES).scores, edges.predict(BOXES).scores)


def test_edges_are_refine_edges_of_the_crops_and_coarser_where_pixels_are_few(model, picture):
    large = picture.repeat(4, 0).repeat(4, 1)
    given = 4 * BOXES
    predictor = Predictor(model, refine="edges")
    predictor.set_image(large)
    crops, boxes = torch.from_numpy(predictor.predict_crops(given)), torch.from_numpy(given)
    frames, pixels = model.mask_frames(boxes), torch.from_numpy(large).permute(2, 0, 1)
    found = predictor.predict(given).pasted.crops
    sides = (frames[:, 2:] - frames[:, :2]).amax(1).tolist()
    assert sides[0] > FEW_PIXELS > sides[1]
    for row, grid in enumerate((GRID, COARSE)):
        own = slice(row, row + 1)
        expected = refine_edges(
            crops[own], frames[own], pixels, threshold=0.5, boxes=boxes[own], grid=grid
        )
        inside = inside_boxes(boxes[own], frames[own], (GRID, GRID)).float()
        expected = (resize_cells(expected, GRID) * inside)[0]
        assert np.allclose(found[row], expected.numpy(), atol=1e-5)


class Brightness:
    """A network whose mask is the picture's own red, and which so can be checked by eye."""

    def last_stage(self, images):
        return images.float() / 255

    def mask_frames(self, boxes):
        return boxes

    def mask_probabilities(self, stage, boxes, valid=None, labels=None, clicks=None):
        from deepmac.nn.roi_crop import roi_crop

        return roi_crop(stage[:, :1], boxes, 16)[:, :, 0]

    def parameters(self):
        return iter([torch.zeros(1)])


def test_looks_in_the_mirror_and_from_close_see_the_same_object():
    red = np.zeros((96, 128), np.float32)
    red[30:50, 40:50] = 255
    red[30:40, 50:60] = 255
    picture = torch.from_numpy(red).to(torch.uint8)[None].repeat(3, 1, 1)
    boxes = torch.tensor([[38.0, 28.0, 62.0, 52.0], [30.0, 20, 70, 60]])
    network = Brightness()
    first = network.mask_probabilities(network.last_stage(picture[None]), boxes[None])[0]
    padded = torch.nn.functional.pad(picture, (0, 32))[None]
    assert torch.allclose(mirrored(network, padded, boxes[None], 128), first, atol=1e-5)
    close = closer(network, picture, boxes)
    assert (close - first).abs().mean() < 0.03

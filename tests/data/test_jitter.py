"""Boxes that are a little off: how far, in which direction, and in which of two definitions."""

import pytest
import torch

from deepmac.data.transforms.jitter import jitter_boxes

CANVAS = (100, 200)
BOXES = torch.tensor([[20.0, 30.0, 60.0, 70.0], [2.0, 40.0, 42.0, 60.0]]).repeat(300, 1)


def outwards(mode, **changes):
    torch.manual_seed(0)
    moved = jitter_boxes(BOXES, 0.2, mode, CANVAS, **changes) - BOXES
    return moved * torch.tensor([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("mode", ["expand_symmetric", "shrink_symmetric"])
def test_symmetric_modes__keep_the_centre_and_draw_an_amount_per_axis(mode):
    moved = outwards(mode)
    assert torch.allclose(moved[:, :2], moved[:, 2:], atol=1e-4)
    assert ((moved >= -1e-4) if mode.startswith("expand") else (moved <= 1e-4)).all()
    sides = BOXES[:, 2:] - BOXES[:, :2]
    shares = moved[:, :2] / sides
    assert 0.15 < shares.abs().max() <= 0.2 + 1e-5
    assert (shares[:, 0] - shares[:, 1]).abs().max() > 0.1


@pytest.mark.parametrize("mode", ["expand_symmetric_xy", "shrink_symmetric_xy"])
def test_symmetric_xy_modes__move_both_axes_by_the_same_share(mode):
    shares = outwards(mode)[:, :2] / (BOXES[:, 2:] - BOXES[:, :2])
    assert torch.allclose(shares[:, 0], shares[:, 1], atol=1e-5)


def test_symmetric_growth__stops_at_the_nearer_edge_on_both_sides():
    assert outwards("expand_symmetric")[1::2, 0].max() == pytest.approx(2.0, abs=1e-4)
    assert outwards("expand_symmetric")[1::2, 2].max() == pytest.approx(2.0, abs=1e-4)

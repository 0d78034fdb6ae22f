"""The IoU of a mask as a loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmac.losses.overlap import not_good, soft_iou


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.1, 0.9))
def test_of_sure_masks__it_is_their_iou_among_the_cells_that_count(seed, threshold):
    made = torch.Generator().manual_seed(seed)
    mask, truth, counted = (torch.rand(3, 5, 4, 6, generator=made) < 0.5).float()
    found = soft_iou(200 * (mask - 0.5), truth, counted, threshold=threshold)
    met = (mask * truth * counted).sum((1, 2))
    union = ((mask + truth).clamp(max=1) * counted).sum((1, 2))
    torch.testing.assert_close(found, met / union.clamp(min=1), atol=1e-4, rtol=0)


def test_masks_end_at_the_threshold():
    logits = 8 * torch.tensor([[[-2.0, -0.2, 2.0]]])  # between the thresholds lies the second
    truth, counted = torch.tensor([[[0.0, 1, 1]]]), torch.ones(1, 1, 3)
    low, high = (soft_iou(logits, truth, counted, threshold=at) for at in (0.1, 0.9))
    assert low.item() == pytest.approx(1, abs=0.2) and high.item() == pytest.approx(0.5, abs=0.01)


def test_nothing_asked_and_nothing_found__is_no_overlap_and_has_a_gradient():
    logits = torch.full((2, 3, 3), -50.0, requires_grad=True)
    iou = soft_iou(logits, torch.zeros(2, 3, 3), torch.zeros(2, 3, 3), threshold=0.5)
    assert iou.tolist() == [0, 0]
    iou.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_masks_that_are_nearly_good_gain_most():
    iou = torch.tensor([0.3, 0.7, 0.88, 0.98], requires_grad=True)
    lacking = not_good(iou)
    assert lacking.tolist() == pytest.approx([1, 0.9975, 0.5, 0.0344], abs=1e-3)
    lacking.sum().backward()
    assert iou.grad.argmin() == 2 and (iou.grad <= 0).all()

"""Masks of whole maps are enlarged and cut out as in the original, its oversight included.

``make reference`` compares them with the original itself.
"""

from __future__ import annotations

import pytest
import torch

from deepmac.nn.full_resolution import original_box_crops, original_resize


def whole(count: int, height: int, width: int) -> torch.Tensor:
    return torch.tensor([0.0, 0, 4 * width, 4 * height]).expand(1, count, 4)


def test_release__enlarges_by_the_stride() -> None:
    logits = torch.randn(1, 3, 8, 8)
    crops = original_box_crops(logits, whole(3, 8, 8), 32, stride=4, by_count=False)
    assert torch.allclose(crops, original_resize(logits, (32, 32)), atol=1e-5)


def test_newest_code__enlarges_to_the_number_of_boxes_and_the_height() -> None:
    logits = torch.randn(1, 3, 8, 8)
    crops = original_box_crops(logits, whole(3, 8, 8), 32, stride=4, by_count=True)
    squeezed = original_resize(logits, (12, 32))
    assert torch.allclose(crops[..., 0, :], squeezed[..., 0, :], atol=1e-5)
    assert torch.allclose(crops[..., -1, :], squeezed[..., -1, :], atol=1e-5)
    assert not torch.allclose(crops, original_resize(logits, (32, 32)), atol=0.1)


@pytest.mark.parametrize("by_count", [False, True])
def test_half_a_box__is_half_of_the_crop(by_count) -> None:
    ramp = torch.arange(16.0).expand(1, 2, 16, 16)
    boxes = torch.tensor([[[0.0, 0, 64, 64], [32.0, 0, 64, 64]]])
    full, right = original_box_crops(ramp, boxes, 64, stride=4, by_count=by_count)[0]
    assert full[0, 0] == 0 and full[0, -1] == 15
    assert right[0, 0] == pytest.approx(7.5, abs=0.2) and right[0, -1] == 15

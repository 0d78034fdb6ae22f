"""The one check of boxes."""

import numpy as np
import pytest
import torch

from deepmac.errors import UserError
from deepmac.predict.boxes import box_fault, checked_boxes, scaled_boxes

SIZE = (120, 90)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((0, 0, 120, 90), None),
        ((-5.5, -3, 1, 1), None),  # meets the picture
        ((0, 0, 1e39, 1e39), None),  # all of the picture, and far more
        ((10, 10, 5, 20), "reversed box"),
        ((10, 20, 15, 10), "reversed box"),
        ((10, 10, 10, 20), "zero-area box"),
        ((0, 0, float("nan"), 3), "malformed box"),
        ((0, 0, float("inf"), 3), "malformed box"),
        ((120, 0, 130, 10), "box outside image"),
        ((-9, -9, 0, 0), "box outside image"),
    ],
)
def test_box_fault__names_what_is_wrong(box, kind) -> None:
    fault = box_fault(box, SIZE)
    assert (fault and fault[0]) == kind
    if kind is None:
        assert checked_boxes([box], SIZE).shape == (1, 4)
    else:
        with pytest.raises(UserError, match=r"box 1, \(.*\), .*: correct or leave it out"):
            checked_boxes([[0, 0, 5, 5], box], SIZE)


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [[1, 2, 3]], [["a", 1, 2, 3]], [[1], [2, 3]], "x"])
def test_checked_boxes__refuses_other_shapes(wrong) -> None:
    with pytest.raises(UserError, match=r"boxes must be \(N, 4\) finite numbers"):
        checked_boxes(wrong, SIZE)


def test_checked_boxes__takes_tensors_lists_and_none_at_all() -> None:
    for boxes in ([[1, 2, 3, 4]], torch.tensor([[1, 2, 3, 4]], dtype=torch.bfloat16)):
        assert checked_boxes(boxes, SIZE).tolist() == [[1, 2, 3, 4]]
    for none in ([], np.zeros((0, 4)), torch.zeros(0)):
        assert checked_boxes(none, SIZE).shape == (0, 4)


def test_scaled_boxes__go_there_and_back() -> None:
    boxes = np.array([[1.0, 2, 30, 40], [-3, 0, 120, 90]])
    there = scaled_boxes(boxes, (90, 120), (45, 240))
    assert there[0].tolist() == [2, 1, 60, 20]
    np.testing.assert_allclose(scaled_boxes(there, (45, 240), (90, 120)), boxes)

"""The scripts in examples/ that train or predict."""

import runpy
from pathlib import Path

import torch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_mask_head_on_faster_rcnn__learns_and_predicts_in_any_boxes():
    torch.manual_seed(0)
    names = runpy.run_path(str(EXAMPLES / "mask_head_on_faster_rcnn.py"))
    names["detector"].transform.min_size = (64,)  # for speed
    picture = torch.rand(3, 64, 64)
    boxes, masks = torch.tensor([[8.0, 8, 56, 40]]), torch.ones(1, 64, 64)
    masks[:, 24:] = 0
    losses = [names["training_step"]([picture], [boxes], [masks]) for _ in range(4)]
    assert losses[-1] < losses[0]
    other = torch.tensor([[0.0, 0, 30, 30], [10.0, 10, 60, 60], [5.0, 40, 25, 64]])
    assert names["mask_logits"]([picture], [other]).shape == (3, 32, 32)

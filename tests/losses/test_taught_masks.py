"""Masks that a teacher gives to objects with a box alone."""

import pytest
import torch

from deepmac.losses.taught_masks import expected_iou, with_taught_masks
from deepmac.nn.deepmac import DeepMAC
from deepmac.predict.masks import mask_scores
from networks import TINY


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    settings = {k: v for k, v in TINY["deepmac"].items() if k in ("backbone", "mask_head")}
    settings |= {"num_init_channels": 8, "box_margin": 0.1, "detector": False}
    network = DeepMAC(num_classes=3, **settings)
    with torch.no_grad():  # fresh logits are enormous; these say: left half of the crop
        network.mask_head.project_out.weight.mul_(0.01)
        network.mask_head.project_out.bias.fill_(0.3)
    return network.eval()


def batch():
    boxes = torch.tensor([[[8.0, 8, 40, 40], [20, 10, 60, 50], [5, 5, 30, 60], [0, 0, 0, 0]]])
    return {
        "images": torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8),
        "boxes": boxes,
        "mask_boxes": boxes + torch.tensor([1.0, -1, 2, 0]),
        "valid": torch.tensor([[True, True, True, False]]),
        "mask_valid": torch.tensor([[True, False, False, False]]),
        "mask_weights": torch.tensor([[0.9, 0, 0, 0]]),
        "mask_targets": torch.rand(1, 4, 32, 32),
    }


def test_every_object__has_a_mask_afterwards_and_people_s_masks_are_as_before(teacher):
    before = batch()
    after = with_taught_masks(before, teacher, before["images"], threshold=0.5, trust=0.5)
    assert after["mask_valid"].tolist() == [[True, True, True, False]]
    assert torch.equal(after["mask_targets"][:, 0], before["mask_targets"][:, 0])
    assert torch.equal(after["mask_targets"][:, 3], before["mask_targets"][:, 3])
    assert after["mask_weights"][0, 0] == before["mask_weights"][0, 0]
    assert (after["mask_weights"][0, 1:3] > 0).all() and (after["mask_weights"][0, 1:3] < 0.5).all()
    assert after["mask_weights"][0, 3] == 0
    full = with_taught_masks(before, teacher, before["images"], threshold=0.5, trust=1.0)
    torch.testing.assert_close(full["mask_weights"][:, 1:], 2 * after["mask_weights"][:, 1:])


def test_taught_masks__are_the_teacher_s_and_end_at_the_true_box(teacher):
    before = batch()
    after = with_taught_masks(before, teacher, before["images"], threshold=0.5, trust=1.0)
    with torch.no_grad():
        stage = teacher.last_stage(before["images"])
        said = teacher.mask_probabilities(stage, before["mask_boxes"])
    for row in (1, 2):
        taught = after["mask_targets"][0, row] > 0.5
        assert taught.any() and not (taught & (said[0, row] <= 0.5)).any()
        assert not taught[[0, -1]].all()  # a tenth of the box on each side is beyond it


def test_an_empty_mask__teaches_nothing(teacher):
    before = batch()
    after = with_taught_masks(before, teacher, before["images"], threshold=1.1, trust=1.0)
    assert torch.equal(after["mask_valid"], before["mask_valid"])
    assert torch.equal(after["mask_targets"], before["mask_targets"])


def test_the_expected_iou__is_the_score_that_labels_carry():
    probabilities = torch.rand(5, 8, 8)
    found = expected_iou(probabilities, probabilities > 0.4)
    expected = torch.from_numpy(mask_scores(probabilities.numpy(), 0.4))
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    nothing = torch.zeros(2, 4, 4)
    assert expected_iou(nothing, nothing > 0).tolist() == [0, 0]

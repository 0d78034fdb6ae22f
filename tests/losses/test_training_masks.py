"""Who shares batch statistics in the mask head: rows with a loss, every row, or an image's rows."""

import pytest
import torch

from deepmac.losses.training_masks import training_boxes, training_mask_logits
from deepmac.nn.stages import StageOutput
from networks import tiny_network

BOXES = torch.tensor(
    [
        [[4.0, 4, 30, 40], [20, 10, 60, 50], [0, 0, 0, 0]],
        [[8.0, 20, 50, 60], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
)
ROWS = torch.tensor([[True, False, False], [True, False, False]])


def network(compat):
    return tiny_network(mask_size=8, compat=compat).train()


def stage_of(built):
    torch.manual_seed(1)
    with torch.no_grad():
        return built(torch.rand(2, 3, 64, 64) * 255)[-1]


def alone(stage, index):
    return StageOutput(*(maps[index : index + 1] for maps in stage))


@pytest.mark.parametrize("compat", [None, "tf_latest", "tf_release"])
def test_statistics__are_of_the_rows_that_the_compat_says(compat):
    built = network(compat)
    stage = stage_of(built)
    with torch.no_grad():
        ours = training_mask_logits(built, stage, BOXES, ROWS)
        if compat is None:
            expected = built.mask_logits(stage, BOXES, ROWS)
        elif compat == "tf_latest":
            expected = built.mask_logits(stage, BOXES)
        else:
            each = [built.mask_logits(alone(stage, i), BOXES[i : i + 1]) for i in (0, 1)]
            expected = torch.cat(each)
            together = built.mask_logits(stage, BOXES)
            assert not torch.allclose(ours, together, atol=1e-3), "statistics are an image's own"
    assert ours.shape == (2, 3, 8, 8)
    assert torch.allclose(ours, expected, atol=1e-5)


def test_running_statistics__of_the_release_move_once_an_image():
    built = network("tf_release")
    stage = stage_of(built)
    norms = [m for m in built.mask_head.modules() if hasattr(m, "running_mean")]
    before = norms[0].running_mean.clone()
    with torch.no_grad():
        training_mask_logits(built, stage, BOXES, ROWS)
    moved = norms[0].running_mean.clone()
    norms[0].running_mean.copy_(before)
    with torch.no_grad():
        for index in (0, 1):
            built.mask_logits(alone(stage, index), BOXES[index : index + 1])
    assert torch.allclose(norms[0].running_mean, moved, atol=1e-6)


@pytest.mark.parametrize(("compat", "name"), [(None, "mask_boxes"), ("tf_latest", "boxes")])
def test_jittered_boxes__cut_the_features_too_but_not_in_the_original(compat, name):
    batch = {"boxes": BOXES, "mask_boxes": BOXES + 1}
    assert training_boxes(network(compat), batch) is batch[name]

"""Simulated clicks: where a mask is most wrong, saying what is right; the same with one seed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepmac.losses.clicks import depth, next_clicks, simulated_clicks
from deepmac.losses.criterion import DeepMACCriterion
from deepmac.losses.options import LossOptions
from deepmac.nn.stages import StageOutput
from networks import tiny_network

SIZE = 16


def blobs(seed, count, size=SIZE):
    """(count, size, size) of soft random shapes in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")[:, 0]


@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 2, 9, 16]))
def test_depth__is_the_chessboard_distance_to_the_outside(seed, size):
    regions = blobs(seed, 4, size).view(2, 2, size, size) > 0.4
    found = depth(regions).numpy()
    flat = found.reshape(4, size, size), regions.reshape(4, size, size)
    for one, expected in zip(*flat, strict=True):
        framed = np.pad(expected.numpy(), 1)
        distance = ndimage.distance_transform_cdt(framed, metric="chessboard")
        np.testing.assert_array_equal(one, distance[1:-1, 1:-1])


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.4, 0.5]))
def test_the_next_click__lies_deep_in_a_wrong_region_and_says_what_is_right(seed, threshold):
    masks, targets = blobs(seed, 3), blobs(seed + 1, 3)
    numbers = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    places, labels = next_clicks(masks, targets, threshold, numbers)
    inside, true = masks > threshold, targets > 0.5
    deepest = depth(torch.stack([inside & ~true, true & ~inside], 1))
    for n, ((x, y), label) in enumerate(zip(places.tolist(), labels.tolist(), strict=True)):
        if np.isnan(x):
            assert (inside[n] == true[n]).all()
            continue
        cell = int(y), int(x)
        assert true[n][cell] == bool(label) and inside[n][cell] != true[n][cell]
        assert deepest[n, label][cell] > deepest[n].max() / 2


def test_masks_that_are_right__get_no_click():
    right = (blobs(1, 2) > 0.5).float()
    places, _ = next_clicks(right, right, 0.4, torch.rand(2, SIZE, SIZE))
    assert places.isnan().all()


@pytest.fixture
def network():
    network = tiny_network(click_head="hourglass10", click_channels=4, mask_size=SIZE)
    with torch.no_grad():
        network.click_head.head.project_out.weight.normal_(std=0.5)
    return network


@pytest.fixture
def batch():
    return {
        "images": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255,
        "mask_boxes": torch.tensor([[[4.0, 4, 40, 50], [8, 8, 60, 60]]] * 2),
        "valid": torch.ones(2, 2, dtype=torch.bool),
        "mask_valid": torch.tensor([[True, True], [True, False]]),
        "mask_targets": blobs(5, 4).view(2, 2, SIZE, SIZE),
    }


def simulate(network, batch, **changes):
    with torch.no_grad():
        stage = network.last_stage(batch["images"])
        inputs = network.head_inputs(stage, batch["mask_boxes"])
        logits = network.mask_logits(stage, batch["mask_boxes"])
    settings = {"number": 3, "threshold": 0.5, "seed": 1, **changes}
    return simulated_clicks(network, inputs, logits, batch, **settings)


def test_clicks__lie_in_their_boxes_and_go_by_the_seed_alone(network, batch):
    network.click_head.train()
    first = simulate(network, batch)
    torch.rand(7)  # other random numbers change nothing
    again, other = simulate(network, batch), simulate(network, batch, seed=2)
    assert first.labels.shape == (2, 2, 3) and network.click_head.training
    assert torch.equal(first.points.nan_to_num(-1), again.points.nan_to_num(-1))
    assert not torch.equal(first.points.nan_to_num(-1), other.points.nan_to_num(-1))
    assert first.rows().tolist() == batch["mask_valid"].tolist()  # nobody knows where else
    boxes = batch["mask_boxes"][:, :, None]
    within = (first.points >= boxes[..., :2]) & (first.points <= boxes[..., 2:])
    assert (within.all(-1) | ~first.there()).all()


def test_more_clicks__begin_with_those_of_fewer(network, batch):
    few, many = simulate(network, batch, number=1), simulate(network, batch, number=4)
    assert torch.equal(few.points.nan_to_num(-1), many.points[:, :, :1].nan_to_num(-1))


def test_points_of_annotations__are_the_first_clicks(network, batch):
    points = torch.tensor([[[[10.0, 12.0]], [[torch.nan] * 2]]] * 2)
    marked = {**batch, "points": points, "point_labels": torch.ones(2, 2, 1, dtype=torch.int64)}
    clicks = simulate(network, marked, number=2)
    assert clicks.labels.shape == (2, 2, 3)
    assert torch.equal(clicks.points[:, :, :1].nan_to_num(-1), points.nan_to_num(-1))
    assert not torch.equal(
        clicks.points[0, 0, 1:], simulate(network, batch, number=2).points[0, 0]
    )  # the mask that they correct is another one


def test_the_click_loss__counts_corrected_masks_by_the_trust_in_them(batch):
    options = LossOptions(click_weight=2.0)
    criterion = DeepMACCriterion(options)
    maps = torch.zeros(2, 4, 16, 16)
    stage = StageOutput(None, None, None, maps, None)
    logits = torch.randn(2, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([[True, False], [True, False]])
    trust = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    batch = {**batch, "mask_weights": trust}
    losses = criterion([stage], [logits], batch, stride=4, corrected=(logits, rows))
    targets = batch["mask_targets"]
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    dice = 1 - 2 * (p * targets).sum((2, 3)) / (p + targets).sum((2, 3))
    one = each.mean((2, 3)) + dice
    expected = (0.5 * one[0, 0] + one[1, 0]) / 2
    torch.testing.assert_close(losses["click"], expected)
    torch.testing.assert_close(losses["loss"], 5 * losses["mask"] + 2 * losses["click"])
    none = criterion([stage], [logits], batch, stride=4, corrected=(logits, rows & False))
    assert none["click"] == 0

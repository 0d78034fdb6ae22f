"""Clicks drawn into a crop, and a head that corrects masks by them and leaves all others alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmac.errors import UserError
from deepmac.nn.clicks import SIGMA, Clicks, draw_clicks
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.inference import for_inference
from networks import tiny_network

BOXES = torch.tensor([[[2.0, 3, 40, 50], [10, 10, 60, 60], [5, 5, 30, 20]]] * 2)
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 255
NONE = [math.nan, math.nan]


def clicking(**changes):
    """A network whose click head says something, as after training."""
    network = tiny_network(click_head="hourglass10", click_channels=4, box_margin=0.1, **changes)
    with torch.no_grad():
        network.click_head.head.project_out.weight.normal_(std=2)
    return network


def on_middle_box(label=1.0):
    points = torch.tensor([[[NONE], [[30.0, 30.0]], [NONE]]] * 2)
    return Clicks(points, torch.full((2, 3, 1), label))


@given(
    x=st.floats(0.05, 0.95), y=st.floats(0.05, 0.95), label=st.sampled_from([0, 1]),
    left=st.floats(-50, 400), top=st.floats(-50, 400), side=st.floats(4, 300),
    tall=st.floats(0.2, 5), size=st.sampled_from([8, 17, 32]),
)  # fmt: skip
def test_a_click__is_a_gaussian_around_its_place_in_the_frame(
    x, y, label, left, top, side, tall, size
):
    frame = torch.tensor([[[left, top, left + side, top + side * tall]]])
    place = torch.tensor([[[[left + x * side, top + y * side * tall]]]])
    drawn = draw_clicks(Clicks(place, torch.tensor([[[label]]])), frame, size)
    assert drawn.shape == (1, 1, 2, size, size)
    mine, other = (drawn[0, 0, 0], drawn[0, 0, 1]) if label else (drawn[0, 0, 1], drawn[0, 0, 0])
    assert not other.any()
    cells = torch.arange(size) + 0.5
    distance = (cells - x * size)[None, :] ** 2 + (cells - y * size)[:, None] ** 2
    torch.testing.assert_close(mine, torch.exp(-distance / (2 * SIGMA**2)), rtol=0.02, atol=2e-3)


@given(seed=st.integers(0, 1000), size=st.sampled_from([8, 32]))
def test_drawing__is_the_largest_of_its_clicks_and_ignores_what_is_none(seed, size):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.tensor([[[0.0, 0, 20, 20], [3, 4, 9, 30]]])
    points = torch.rand(1, 2, 4, 2, generator=generator) * 20
    labels = torch.randint(0, 2, (1, 2, 4), generator=generator)
    together = draw_clicks(Clicks(points, labels), frames, size)
    each = [
        draw_clicks(Clicks(points[:, :, k : k + 1], labels[:, :, k : k + 1]), frames, size)
        for k in range(4)
    ]
    assert torch.equal(together, torch.stack(each).amax(0))
    nothing = Clicks(torch.full_like(points, math.nan), labels)
    assert torch.equal(draw_clicks(Clicks(points, labels).joined(nothing), frames, size), together)
    assert not draw_clicks(nothing, frames, size).any()
    assert not draw_clicks(Clicks(points[:, :, :0], labels[:, :, :0]), frames, size).any()


def test_frames_without_area__draw_nothing_that_is_not_finite():
    drawn = draw_clicks(
        Clicks(torch.zeros(1, 1, 1, 2) + 3, torch.ones(1, 1, 1)), torch.zeros(1, 1, 4), 8
    )
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("prepared", [False, True])
@torch.no_grad()
def test_boxes_without_clicks__keep_their_masks_to_the_bit(prepared):
    network = clicking()
    plain = tiny_network(box_margin=0.1)
    plain.load_state_dict(
        {k: v for k, v in network.state_dict().items() if not k.startswith("click_head.")}
    )
    if prepared:
        network, plain = for_inference(network), for_inference(plain)
    before = plain.mask_probabilities(plain.last_stage(IMAGES), BOXES)
    stage = network.last_stage(IMAGES)
    assert torch.equal(network.mask_probabilities(stage, BOXES), before)
    after = network.mask_probabilities(stage, BOXES, clicks=on_middle_box())
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] - before[:, 1]).abs().max() > 0.01
    nowhere = Clicks(torch.full((2, 3, 2, 2), math.nan), torch.ones(2, 3, 2))
    assert torch.equal(network.mask_probabilities(stage, BOXES, clicks=nowhere), before)


@torch.no_grad()
def test_a_fresh_click_head__changes_nothing_yet():
    network = tiny_network(click_head="hourglass10", click_channels=4)
    stage = network.last_stage(IMAGES)
    after = network.mask_probabilities(stage, BOXES, clicks=on_middle_box())
    torch.testing.assert_close(after, network.mask_probabilities(stage, BOXES))


@torch.no_grad()
def test_the_same_click__is_the_same_wherever_the_object_lies_in_the_batch():
    network = clicking()
    stage = network.last_stage(IMAGES)
    whole = network.mask_probabilities(stage, BOXES, clicks=on_middle_box())
    middle = Clicks(*(part[:, 1:2] for part in on_middle_box()))
    alone = network.mask_probabilities(stage, BOXES[:, 1:2], clicks=middle)
    torch.testing.assert_close(whole[:, 1:2], alone)
    valid = torch.tensor([[True, False, True]] * 2)
    dead = network.mask_probabilities(stage, BOXES, valid, clicks=on_middle_box())
    assert torch.equal(dead[:, 1], torch.full_like(dead[:, 1], 0.5))


def test_networks_without_a_click_head__are_what_they_were_and_refuse_clicks():
    network = tiny_network()
    assert not network.takes_clicks
    assert not any("click" in name for name in network.state_dict())
    with pytest.raises(UserError, match="no click head"):
        network.mask_probabilities(network.last_stage(IMAGES), BOXES, clicks=on_middle_box())
    marc = tiny_network("deepmarc")
    with pytest.raises(UserError, match="no click head"):
        marc.mask_probabilities(marc.last_stage(IMAGES), BOXES, clicks=on_middle_box())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"click_head": "cond_inst3"}, "cannot see clicks"),
        ({"click_head": "hourglass9"}, "no mask head is called"),
        ({"click_head": "hourglass52", "mask_size": 28}, "multiple of 32"),
        ({"click_head": "hourglass10", "predict_full_resolution_masks": True}, "full-resolution"),
        ({"click_head": "hourglass10", "compat": "tf_latest"}, "networks of the original"),
    ],
)
def test_settings_that_do_not_go_together__are_refused(changes, sentence):
    settings = {"num_classes": 1, "backbone": "hourglass_tiny2", "mask_head": "hourglass10"}
    with pytest.raises(ValueError, match=sentence):
        DeepMAC(**{**settings, "head_channels": 8, "num_init_channels": 4, **changes})


def test_a_click_head_of_the_mask_heads_kind__starts_from_its_weights():
    network = tiny_network(click_head="hourglass10", click_channels=4, seed=1)
    taken = network.click_head.start_from(network.mask_head)
    theirs, own = network.mask_head.state_dict(), network.click_head.head.state_dict()
    assert taken == len(theirs) - 2  # its last layer's weight and bias stay zero
    first = "net.input_block.conv_block.conv.weight"
    assert torch.equal(own[first][:, :6], theirs[first][:, :6])
    assert torch.equal(own[first][:, 9:], theirs[first][:, 6:])
    assert not own["project_out.weight"].any()
    other = tiny_network(click_head="resnet4", click_channels=4)
    assert other.click_head.start_from(other.mask_head) == 0


@pytest.mark.parametrize("name", ["resnet4", "hourglass20", "fully_connected"])
@torch.no_grad()
def test_other_heads__correct_masks_too(name):
    network = tiny_network(click_head=name, click_channels=4)
    answer = network.mask_probabilities(network.last_stage(IMAGES), BOXES, clicks=on_middle_box())
    assert answer.shape == (2, 3, 32, 32) and torch.isfinite(answer).all()

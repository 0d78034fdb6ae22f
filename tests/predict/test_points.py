"""Clicks through ``Predictor``: what they change, what they leave, and what is no click."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmac.errors import UserError
from deepmac.nn.clicks import Clicks
from deepmac.predict.points import checked_points, scaled_points
from deepmac.predict.predictor import Predictor
from deepmac.predict.second_look import closer, mirrored
from networks import tiny_network

BOXES = np.array([[5.0, 10, 60, 70], [20, 20, 90, 50], [50, 5, 95, 75]])
PICTURE = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
SIZE = (100, 80)


@pytest.fixture(scope="module")
def network():
    network = tiny_network(click_head="hourglass10", click_channels=4, box_margin=0.1)
    with torch.no_grad():
        network.click_head.head.project_out.weight.normal_(std=2)
        network.mask_head.project_out.weight.mul_(0.01)
    return network


@pytest.mark.parametrize("refine", ["none", "edges", "full"])
def test_clicks__change_their_box_alone(network, refine):
    predictor = Predictor(network, image_size=64, refine=refine)
    predictor.set_image(PICTURE)
    before = predictor.predict(BOXES)
    after = predictor.predict(BOXES, points=[[], [(50, 30, 1), (30, 40, 0)], None])
    for row in (0, 2):
        assert np.array_equal(before.masks[row], after.masks[row])
    assert before.scores[[0, 2]].tolist() == after.scores[[0, 2]].tolist()
    assert before.scores[1] != after.scores[1]
    nothing = predictor.predict(BOXES, points=[[], [], []])
    assert np.array_equal(nothing.masks, before.masks)


def test_clicks__are_lists_arrays_or_tensors(network):
    predictor = Predictor(network, image_size=64)
    predictor.set_image(PICTURE)
    wanted = predictor.predict_crops(BOXES[:2], [[(30, 30, 1)], [(40, 40, 0)]])
    array = np.array([[[30.0, 30, 1]], [[40, 40, 0]]])
    for given_ in (array, torch.tensor(array), list(array), [[[30, 30, True]], [array[1, 0]]]):
        assert np.array_equal(predictor.predict_crops(BOXES[:2], given_), wanted)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([[], []], "for each of the 3 boxes, not 2 of them"),
        (7, "not int"),
        ([[], [(1, 2)], []], "box 1 has the point (1, 2); it is three numbers x, y, label"),
        ([[], [("a", 2, 1)], []], "three numbers"),
        ([[], 3, []], "the points of box 1 are no list"),
        ([[(math.nan, 30, 1)], [], []], "(nan, 30, 1) of box 0 holds a NaN or infinite number"),
        ([[(math.inf, 30, 1)], [], []], "holds a NaN or infinite number"),
        ([[(30, 30, 2)], [], []], "neither 1 (on the object) nor 0"),
        ([[(30, 30, math.nan)], [], []], "neither 1 (on the object) nor 0"),
        ([[], [], [(99, 200, 1)]], "box 2 lies outside the picture of 100 x 80"),
        ([[(70, 30, 0)], [], []], "(70, 30, 0) of box 0 lies outside its box"),
    ],
)
def test_what_is_no_click__is_one_sentence(network, points, sentence):
    predictor = Predictor(network, image_size=64)
    predictor.set_image(PICTURE)
    with pytest.raises(UserError, match=re.escape(sentence)) as error:
        predictor.predict(BOXES, points=points)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("system", ["deepmac", "deepmarc"])
def test_a_model_without_a_click_head__says_so(system):
    predictor = Predictor(tiny_network(system), image_size=64)
    predictor.set_image(PICTURE)
    with pytest.raises(UserError, match="has no click head"):
        predictor.predict(BOXES, points=[[(30, 30, 1)], [], []])
    predictor.predict(BOXES, points=[[], [], []])  # nothing is asked of it


@given(share=st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)), label=st.sampled_from([0, 1]))
def test_clicks__may_lie_where_the_network_looks(share, label):
    box = np.array([[20.0, 20, 60, 50]])
    x, y = 20 + 40 * share[0], 20 + 30 * share[1]
    (checked,) = checked_points([[(x, y, label)]], box, SIZE)
    assert checked.tolist() == [[x, y, label]]
    moved = scaled_points(checked[None], (80, 100), (40, 200))
    np.testing.assert_allclose(moved[0, 0], [2 * x, y / 2, label])


@torch.no_grad()
def test_further_looks__see_the_clicks_in_their_place(network):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    boxes = torch.tensor([[[4.0, 6, 40, 50], [20, 10, 60, 30]]])
    points = torch.tensor([[[[10.0, 20, 1], [30, 40, 0]], [[25, 12, 1], [math.nan] * 3]]])
    clicks = Clicks(points[..., :2], points[..., 2])
    wanted = network.mask_probabilities(network.last_stage(image), boxes, clicks=clicks)[0]
    x0, y0, x1, y1 = boxes.unbind(-1)
    turned = torch.stack([64 - x1, y0, 64 - x0, y1], -1)
    flipped = torch.stack([64 - points[..., 0], points[..., 1], points[..., 2]], -1)
    twice = mirrored(network, image.flip(-1), turned, 64, flipped).flip(-1)
    torch.testing.assert_close(twice, wanted)

    picture = (image[0] * 1).to(torch.uint8)
    before, after = (
        closer(network, picture, boxes[0]),
        closer(network, picture, boxes[0], points[0]),
    )
    apart = (before - after).abs().amax((1, 2))
    assert (apart > 0.01).all()
    seen = []
    network.click_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    closer(network, picture, boxes[0], points[0])
    first = seen[0][0, 0]  # the positive click of the first box, drawn in its crop
    y, x = divmod(int(first.argmax()), 32)
    frame = network.mask_frames(boxes)[0, 0]
    place = (points[0, 0, 0, :2] - frame[:2]) / (frame[2:] - frame[:2]) * 32
    assert abs(x + 0.5 - place[0]) <= 0.6 and abs(y + 0.5 - place[1]) <= 0.6

"""How pictures of any shape are shown to a network."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmac import Predictor
from deepmac.class_map import ClassMap
from deepmac.errors import ConfigError, UserError
from deepmac.models.card import ModelCard
from deepmac.predict.letterbox import InputSpec
from networks import tiny_card, tiny_model

SIDES = st.integers(1, 4000)
CARD = tiny_card(classes=ClassMap((7,), ("ant",), frozenset({7})), about={"input_shape": "picture"})


@given(height=SIDES, width=SIDES, size=st.sampled_from([256, 512, 640, 1024]))
def test_frame__has_about_as_many_pixels_as_the_square_and_the_shape_of_the_picture(
    height: int, width: int, size: int
) -> None:
    frame = InputSpec(size, "picture", divisor=32).frame((height, width))
    assert all(side > 0 and side % 64 == 0 for side in frame)
    assert 0.6 < frame[0] * frame[1] / size**2 < 1.5
    stretch = min(max(height / width, 0.25), 4)
    assert abs(math.log(frame[0] / frame[1] / stretch)) < 0.6
    assert InputSpec(size, "picture").frame((width, height)) == frame[::-1]
    assert InputSpec(size, "square").frame((height, width)) == (size, size)


@given(height=st.integers(20, 300), width=st.integers(20, 300))
def test_letterbox__fills_a_side_of_the_frame_and_keeps_the_aspect(height: int, width: int) -> None:
    spec = InputSpec(256, "picture", divisor=32)
    entry = spec.letterbox(np.full((height, width, 3), 200, np.uint8))
    frame, true = tuple(entry.image.shape[-2:]), entry.true_size
    assert frame == spec.frame((height, width))
    assert any(side == whole for side, whole in zip(true, frame, strict=True))
    assert true[0] / height == pytest.approx(true[1] / width, abs=1 / min(height, width))
    assert int(entry.image[0, :, : true[0], : true[1]].min()) == 200
    assert int(entry.image.sum()) == 3 * 200 * true[0] * true[1]


def test_sides__are_multiples_of_what_the_backbone_divides_by() -> None:
    assert InputSpec(512, "picture", divisor=128).frame((480, 640)) == (384, 640)


def test_card__says_the_shape_and_older_cards_are_square() -> None:
    values = CARD.to_dict()
    assert ModelCard.from_dict(values, source="x") == CARD
    assert "input_shape" not in replace(CARD, input_shape="square").to_dict()
    del values["input_shape"]
    assert ModelCard.from_dict(values, source="x").input_shape == "square"
    with pytest.raises(ConfigError, match="no usable model"):
        ModelCard.from_dict({**values, "input_shape": "round"}, source="x")


def test_card__of_the_original_knows_squares_alone() -> None:
    card = replace(CARD, network={**CARD.network, "compat": "tf_release"})
    wide = np.zeros((120, 480, 3), np.uint8)
    with pytest.raises(UserError, match="squares alone: make it `input_shape: square`"):
        Predictor(tiny_model(card)).set_image(wide)
    Predictor(tiny_model(replace(card, input_shape="square"))).set_image(wide)


def test_predictor__shows_the_network_what_the_card_says() -> None:
    model = tiny_model(CARD)
    wide = np.random.default_rng(0).integers(0, 256, (120, 480, 3), dtype=np.uint8)
    box = [[40.0, 20, 400, 110]]
    predictor = Predictor(model, image_size=128)
    assert (predictor.image_size, predictor.spec.frame((120, 480))) == (128, (64, 256))
    predictor.set_image(wide)
    masks, _ = predictor.predict(box)
    assert masks.shape == (1, 120, 480)
    square = predictor.spec.squared()
    assert square.frame((120, 480)) == (128, 128)

"""What only a CUDA card shows; skipped without one. ``make gpu`` measures more."""

import copy

import pytest
import torch
from benchmarks.big_network import training_batch

from benchmarks import gpu
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.inference import for_inference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card")


@pytest.fixture(scope="module")
def card() -> gpu.Card:
    return gpu.Card("cuda", tiny=True)


def test_card__gives_the_numbers_of_the_processor(card: gpu.Card) -> None:
    assert gpu.parity(card)["ok"]


def test_training__is_resumed_and_repeated(card: gpu.Card) -> None:
    assert gpu.resume(card)["largest relative difference"] < 1e-3
    assert gpu.deterministic(card)["equal"]


def test_automatic_batch__trains_within_the_room_that_there_is(card: gpu.Card) -> None:
    found = gpu.batch_size_auto(card)
    assert found["steps"] == 3 and 1 < found["batch_size"] <= 16
    assert found["share_of_room"] <= 1


def test_boxes_that_are_not_finite__do_no_harm(card: gpu.Card) -> None:
    network = DeepMAC(num_classes=2, head_channels=8, **gpu.LITE_SMALL).eval()
    there = for_inference(copy.deepcopy(network).to(card.device), "auto")
    images = training_batch(64)["images"].to(card.device)
    wild = torch.tensor([[[0, 0, float("inf"), 1e39], [float("nan")] * 4]], device=card.device)
    with torch.inference_mode():
        masks = there.mask_probabilities(there.last_stage(images), wild)
    assert torch.isfinite(masks).all()

"""A small network whose values are of a trained one's order: rounding grows with them."""

import numpy as np
import pytest
import torch

from deepmac.class_map import ClassMap
from deepmac.export.graphs import blobs
from networks import tiny_card, tiny_model

SIZES = {"backbone": "hourglass_10", "mask_size": 16, "max_detections": 6}
CLASSES = ClassMap((7, 30, 31), ("ant", "bee", "cat"), frozenset({7}))


def card(**changes):
    return tiny_card(classes=CLASSES, **{**SIZES, **changes})


@pytest.fixture(scope="session")
def make_model():
    def make(**changes):
        model = tiny_model(card(**changes), seed=3).train()
        images, boxes = blobs(3, 64, 64), torch.tensor([[4.0, 6, 40, 50], [20, 2, 60, 30]])
        with torch.no_grad():
            for _ in range(30):  # batch norms as if trained: values stay of the order of one
                model.mask_logits(model(images)[-1], boxes.expand(3, 2, 4))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def picture():
    """(50, 75, 3) uint8: soft blobs."""
    coarse = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (50, 75), mode="bicubic")[0]
    return (smooth.clamp(0, 1) * 255).permute(1, 2, 0).numpy().astype(np.uint8)

"""A small model's folder as `deepmac convert` writes it."""

from pathlib import Path

import torch
from torch import Tensor

from deepmac.class_map import ClassMap
from deepmac.models.card import ModelCard
from deepmac.models.files import build_model, write_model
from deepmac.nn.backbones import CENTERNET_BGR

SMALL = {
    "backbone": "hourglass_tiny2",
    "head_channels": 8,
    "mask_head": "hourglass10",
    "num_init_channels": 4,
    "pixel_embedding_dim": 4,
    "dim": 4,
}


def converted(
    folder: Path, names, compat="tf_release", normalization=CENTERNET_BGR
) -> dict[str, Tensor]:
    """Write it, with the class ``names`` of ids 1, 2, ...; its tensors."""
    ids = tuple(range(1, len(names) + 1))
    card = ModelCard(
        network={**SMALL, "compat": compat},
        normalization=normalization,
        class_map=ClassMap(ids, tuple(names), frozenset(ids)),
        image_size=64,
    )
    torch.manual_seed(5)
    model = build_model(card, source="here")
    folder.mkdir(exist_ok=True)
    write_model(folder, model.state_dict(), card)
    return model.state_dict()

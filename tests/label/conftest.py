"""A tiny network in a folder and a few generated pictures with boxes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deepmac.class_map import ClassMap
from deepmac.data.shapes.data_set import write_shapes
from deepmac.models.files import write_model
from deepmac.nn.deepmac import DeepMAC
from networks import tiny_card, tiny_model

CARD = tiny_card(
    classes=ClassMap((1, 2), ("ant", "bee"), frozenset({1})),
    pixel_embedding_dim=16,
    click_head="hourglass10",
    click_channels=4,
)


def spread_masks(network: DeepMAC) -> None:
    """Scale the mask head's last layer so that cells are foreground or not, more or less sure.

    A click head says something, too.
    """
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 30.0], [20.0, 5.0, 60.0, 60.0]]).expand(2, 2, 4)
    with torch.no_grad():
        last, stage = network.mask_head.project_out, network(images)[-1]
        last.weight.mul_(2 / network.mask_logits(stage, boxes).std())
        last.bias.sub_(network.mask_logits(stage, boxes).median())
        if network.click_head is not None:
            network.click_head.head.project_out.weight.normal_(std=2)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights whose masks differ from box to box."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    network = tiny_model(CARD, seed=3)
    spread_masks(network)
    write_model(folder, network.state_dict(), CARD)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """40 pictures; ``train`` has masks for half of the classes, ``val`` for all."""
    root = tmp_path_factory.mktemp("shapes") / "set"
    write_shapes(root, num_train=40, num_val=12, size=96)
    return SimpleNamespace(
        images=root / "images",
        train=root / "annotations/instances_train.json",
        val=root / "annotations/instances_val.json",
    )


@pytest.fixture
def boxes_only(data: SimpleNamespace, tmp_path: Path) -> Path:
    """The training file without any mask."""
    content = json.loads(data.train.read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = []
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return path

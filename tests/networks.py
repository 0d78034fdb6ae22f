"""The smallest networks that have every part, for all tests that need one."""

from typing import Any

import torch

from deepmac.class_map import ClassMap
from deepmac.models.card import ModelCard
from deepmac.models.files import NETWORKS, build_model
from deepmac.nn.backbones import IMAGENET, Normalization
from deepmac.nn.network import SegmentationNetwork

TINY: dict[str, dict[str, Any]] = {
    "deepmac": {
        "backbone": "hourglass_tiny2",
        "head_channels": 8,
        "mask_head": "hourglass10",
        "num_init_channels": 4,
        "pixel_embedding_dim": 4,
        "dim": 4,
    },
    "deepmarc": {
        "backbone": "resnet10t",
        "pyramid_width": 16,
        "mask_head": "hourglass10",
        "num_init_channels": 4,
        "mask_size": 16,
        "head_channels": 16,
        "proposals": 50,
        "rois_per_image": 32,
        "min_score": 0.0,
        "max_detections": 5,
    },
}
"""Arguments of the networks, by system."""
CLASSES = ClassMap((3, 7, 11), ("cat", "dog", "cow"), frozenset({3, 7}))


def tiny_network(
    system: str = "deepmac", *, num_classes: int = 3, seed: int = 0, **changes: Any
) -> SegmentationNetwork:
    """A network in eval mode; equal seeds give equal weights."""
    torch.manual_seed(seed)
    settings = {**TINY[system], **changes}
    return NETWORKS[system](num_classes=num_classes, **settings).eval()


def tiny_card(
    system: str = "deepmac",
    *,
    classes: ClassMap = CLASSES,
    normalization: Normalization = IMAGENET,
    about: dict[str, Any] | None = None,
    **changes: Any,
) -> ModelCard:
    """What describes it; ``about``: further fields of the card."""
    return ModelCard(
        network={**TINY[system], **changes},
        normalization=normalization,
        class_map=classes,
        image_size=64,
        system=system,
        **(about or {}),
    )


def tiny_model(card: ModelCard, seed: int = 0) -> SegmentationNetwork:
    """The network of a card, in eval mode."""
    torch.manual_seed(seed)
    return build_model(card, source="the test").eval()


def masks_of_whole_boxes(**changes: Any) -> Any:
    """A ``DeepMACModule`` of masks alone, whose mask head says: all of the box."""
    from deepmac.lightning.deepmac_module import DeepMACModule

    torch.manual_seed(0)
    built = DeepMACModule(**{**TINY["deepmac"], "detector": False, **changes})
    built.build(CLASSES)
    with torch.no_grad():  # fresh logits are enormous
        built.network.mask_head.project_out.weight.zero_()
        built.network.mask_head.project_out.bias.fill_(0.5)
    return built

"""What a mask head costs: its parameters, and its multiply-adds for one box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from deepmac.lightning.systems import SYSTEMS

_PARTS = ("mask_head", "mask_predictor")


@dataclass(frozen=True)
class HeadCost:
    """Cost of a mask head.

    Attributes:
        parameters: of the head; in Deep-MARC also of the layers that turn its answer into masks.
        multiply_adds: of the same layers for one box; the crop of the features is not counted.
    """

    parameters: int
    multiply_adds: int


def head_cost(system: str, model: Mapping[str, Any]) -> HeadCost:
    """Build the network of a run and count.

    Args:
        system: ``deepmac`` or ``deepmarc``.
        model: the run's settings of the model.
    """
    settings = {**model, "weights": None, "init_from": None}
    if system == "deepmac":
        settings["crop_impl"] = "torchvision"  # the separable crop is made of counted products
    network: Any = SYSTEMS[system](**settings).make_network(1).eval()
    parameters = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if any(part in _PARTS for part in name.split("."))
    )
    side = 4 * network.backbone.size_divisor
    with torch.no_grad():
        stage = network.last_stage(torch.zeros(1, 3, side, side))
        for name in ("pixel_embedding", "instance_embedding"):
            getattr(stage, name, None)  # computed when read, and no part of the head
        box = torch.tensor([[[0.0, 0.0, side / 2, side / 2]]])
        with FlopCounterMode(display=False) as counter:
            network.mask_logits(stage, box)
    return HeadCost(parameters, counter.get_total_flops() // 2)

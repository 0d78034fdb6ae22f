"""What labelling asks of a network: probabilities within given boxes of a batch of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepmac.predict.masks import crop_probabilities


def box_probabilities(
    network: Any,
    images: Tensor,
    boxes: Tensor,
    valid: Tensor,
    lap: Callable[[str], None] = lambda stage: None,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One backbone pass for each image, then the mask head for all boxes.

    Args:
        network: in eval mode.
        images: (B, 3, H, W), as the network takes them.
        boxes: (B, N, 4) xyxy in input pixels.
        valid: (B, N) bool, False for padding.
        lap: told the stage that has just ended, ``backbone`` or ``heads``.

    Returns:
        (M, P, P) float32, the M valid rows in their order.
    """
    stage = network.last_stage(images)
    lap("backbone")
    crops: np.ndarray[Any, np.dtype[np.float32]] = (
        crop_probabilities(network, stage, boxes, valid)[valid].cpu().numpy()
    )
    lap("heads")
    return crops


def model_digest(network: nn.Module, card: dict[str, Any]) -> str:
    """SHA-256 of a network's weights and description: what its masks depend on."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

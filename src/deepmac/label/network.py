"""What labelling asks of a network: probabilities within given boxes of a batch of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepmac.nn.conventions import PasteRule

BOXES_PER_STEP = 64
"""Boxes of one image that go through the mask head at once: the bound on memory."""


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
    stage = network(images)[-1]
    lap("backbone")
    rows: list[list[np.ndarray[Any, np.dtype[np.float32]]]] = [[] for _ in range(len(images))]
    for start in range(0, boxes.shape[1], BOXES_PER_STEP):
        some = slice(start, start + BOXES_PER_STEP)
        chosen = valid[:, some]
        crops = network.mask_probabilities(stage, boxes[:, some], chosen).float().cpu().numpy()
        for mine, crop, keep in zip(rows, crops, chosen.cpu().numpy(), strict=True):
            mine.append(crop[keep])
    lap("heads")
    return np.concatenate([chunk for mine in rows for chunk in mine])


def paste_rule(network: Any) -> PasteRule:
    """How the network's crops meet pixels."""
    rule: PasteRule = network.conventions.paste_rule
    return rule


def paste_frames(
    network: Any, boxes: np.ndarray[Any, np.dtype[np.float64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n, 4) xyxy regions that the crops of such boxes cover: some networks look beyond them."""
    frames: np.ndarray[Any, np.dtype[np.float64]] = network.mask_frames(
        torch.from_numpy(boxes)
    ).numpy()
    return frames


def model_digest(network: nn.Module, card: dict[str, Any]) -> str:
    """SHA-256 of a network's weights and description: what its masks depend on."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

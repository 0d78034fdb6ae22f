"""What tells one model from another: jobs and calibrations belong to one."""

from __future__ import annotations

import hashlib
import json

import torch

from deepmac.models.files import card_of
from deepmac.nn.network import SegmentationNetwork


def model_digest(network: SegmentationNetwork) -> str:
    """SHA-256 of a network's weights and description: what its masks depend on."""
    card = card_of(network)
    said = json.dumps(card.to_dict() if card else {}, sort_keys=True, default=str)
    digest = hashlib.sha256(said.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

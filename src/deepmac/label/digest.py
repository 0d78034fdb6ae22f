"""What tells one model from another: jobs and calibrations belong to one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn


def model_digest(network: nn.Module, card: dict[str, Any]) -> str:
    """SHA-256 of a network's weights and description: what its masks depend on."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

"""Exported programs as PyTorch's own ``.pt2`` archives."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Write one graph for ``torch.export.load``; that needs neither this package nor timm."""
    file = io.BytesIO()  # what torch says of a full disk names neither disk nor file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, file)
    path.write_bytes(file.getbuffer())


class TorchRun:
    """Runs a file with PyTorch."""

    def __init__(self, path: Path) -> None:
        self.module = torch.export.load(path).module()

    def __call__(self, inputs: dict[str, Tensor]) -> Sequence[NDArray[np.generic]]:
        with torch.no_grad():
            found = self.module(*inputs.values())
        return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]

"""What the campaign works on: a tiny model, pictures with boxes, places to write to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from deepmac.data.shapes.data_set import write_shapes
from deepmac.models.files import build_model, write_model
from label.conftest import CARD, spread_masks
from soak.children import End

_NETWORK = {
    "backbone": "test_resnet",
    "pyramid_width": 8,
    "head_channels": 4,
    "mask_head": "resnet4",
    "num_init_channels": 4,
    "dim": 4,
}


class World:
    """Inputs in ``root``; made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.model = root / "model"
        self.pictures = root / "pictures"
        self.boxes = root / "boxes.json"
        self.whole: tuple[Path, End] | None = None
        self.other_disk: Path | None = None
        self.environment = {
            "DEEPMAC_CACHE": str(self.cache),
            "DEEPMAC_RUN_DIR": "",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
        }
        if not self.model.is_dir():
            self._make()

    def _make(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(3)
        card = replace(CARD, network=_NETWORK)
        network = build_model(card, source="the campaign").eval()
        spread_masks(network)
        self.model.mkdir()
        write_model(self.model, network.state_dict(), card)
        write_shapes(self.root / "set", num_train=6, num_val=2, size=64)
        self.pictures = self.root / "set" / "images"
        content = json.loads((self.root / "set/annotations/instances_train.json").read_text())
        for annotation in content["annotations"]:
            annotation.pop("segmentation", None)
        self.boxes.write_text(json.dumps(content))

    def fresh(self, name: str) -> Path:
        """An empty place."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        return path


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of its own; None where mounting one is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)

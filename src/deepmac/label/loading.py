"""Pictures for the network: decoded and scaled in worker processes, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepmac.data.images import ImageFileError, read_image
from deepmac.label.masks.records import enlarged
from deepmac.label.plan import ImageTask
from deepmac.nn.conventions import TODAY, Conventions
from deepmac.predict.letterbox import letterbox


@dataclass(frozen=True)
class LabelBatch:
    """Some images of one part.

    Attributes:
        part: its number.
        last: whether it is the part's last batch.
        tasks: those whose picture could be read.
        images: (B, 3, S, S), or None when there are none.
        asked: for each task (n, 4) xyxy in the picture's pixels, with the margin.
        boxes: (B, N, 4) the same in input pixels.
        valid: (B, N) bool.
        errors: (task, kind, sentence) of the others.
        seconds: spent here.
        pictures: (H, W, 3) uint8 of each task, where masks are refined with them.
    """

    part: int
    last: bool
    tasks: list[ImageTask]
    images: Tensor | None
    asked: list[NDArray[np.float64]]
    boxes: Tensor
    valid: Tensor
    errors: list[tuple[ImageTask, str, str]] = field(default_factory=list)
    seconds: float = 0.0
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)


class _Share(NamedTuple):
    part: int
    last: bool
    tasks: list[ImageTask]


class BatchDataset(Dataset[LabelBatch]):
    """The batches of some parts, in order; the same whatever else is to be done.

    Args:
        parts: by number.
        batch_size: images of one part that go through the network together.
        image_size: side of the network's input, pixels.
        conventions: the network's.
        box_margin: see ``MaskOptions``.
        keep_pictures: give the decoded pictures too.
    """

    def __init__(
        self,
        parts: dict[int, list[ImageTask]],
        *,
        batch_size: int,
        image_size: int,
        conventions: Conventions = TODAY,
        box_margin: float = 0.0,
        keep_pictures: bool = False,
    ) -> None:
        self.keep_pictures = keep_pictures
        self.image_size, self.conventions, self.box_margin = image_size, conventions, box_margin
        self.shares: list[_Share] = []
        for number in sorted(parts):
            tasks = parts[number]
            starts = range(0, len(tasks), batch_size)
            self.shares += [
                _Share(number, start == starts[-1], tasks[start : start + batch_size])
                for start in starts
            ]

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, index: int) -> LabelBatch:
        """Read the pictures of one batch."""
        started = time.perf_counter()
        share = self.shares[index]
        good: list[ImageTask] = []
        images, asked, scaled = [], [], []
        errors, pictures = [], []
        for task in share.tasks:
            try:
                pixels = read_image(task.path, task.size)
            except ImageFileError as error:
                errors.append((task, error.kind, str(error)))
                continue
            entry = letterbox(pixels, self.image_size, self.conventions)
            boxes = enlarged(task.boxes, self.box_margin, task.size)
            width, height = task.size
            sides = np.array([width, height] * 2, dtype=np.float64)
            good.append(task)
            if self.keep_pictures:
                pictures.append(pixels)
            images.append(entry.image)
            asked.append(boxes)
            scaled.append(boxes / sides * np.array([*entry.true_size[::-1]] * 2))
        padded, valid = _padded(scaled)
        return LabelBatch(
            share.part,
            share.last,
            good,
            torch.cat(images) if images else None,
            asked,
            padded,
            valid,
            errors,
            time.perf_counter() - started,
            pictures,
        )


def _padded(boxes: Sequence[NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, boxes), default=0)
    padded = torch.zeros(len(boxes), longest, 4)
    valid = torch.zeros(len(boxes), longest, dtype=torch.bool)
    for row, own in enumerate(boxes):
        padded[row, : len(own)] = torch.from_numpy(own.astype(np.float32))
        valid[row, : len(own)] = True
    return padded, valid

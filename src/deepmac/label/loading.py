"""Pictures for the network: decoded and scaled in worker processes, a few at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from deepmac.data.images import ImageFileError, read_image
from deepmac.label.masks.records import enlarged
from deepmac.label.plan import ImageTask
from deepmac.label.views import View, cut, put_upright, views_of
from deepmac.predict.boxes import scaled_boxes
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.points import Points, scaled_points

IMAGES_TOGETHER = 16
"""Neighbours by position whose views may share a batch: what a mask is does not depend on how many
of them are in a part."""
VIEWS_AT_ONCE = 32
"""Views of one picture that are made from one decoding, where a picture has many."""


@dataclass(frozen=True)
class LabelBatch:
    """Some views of the images of one part.

    Attributes:
        part: its number.
        last: whether it is the part's last batch.
        tasks: for each view of a picture that could be read, the image with the view's boxes.
        images: for each view (1, 3, height, width), of shapes that may differ.
        asked: for each view (n, 4) xyxy in the picture's pixels, with the margin; of a turned box
            before it is turned.
        boxes: (V, N, 4) the same in input pixels.
        valid: (V, N) bool.
        errors: (task, kind, sentence) of the other views.
        finished: how many images have their last view here.
        seconds: spent here.
        pictures: (H, W, 3) uint8 that each view shows, where masks are refined with them.
        places: (n, 4) xyxy boxes in those.
        clicks: (n, K, 3) clicks in what each view shows.
        points: (V, N, K, 3) the same in input pixels; None where no box has any.
    """

    part: int
    last: bool
    tasks: list[ImageTask]
    images: list[Tensor]
    asked: list[NDArray[np.float64]]
    boxes: Tensor
    valid: Tensor
    errors: list[tuple[ImageTask, str, str]] = field(default_factory=list)
    finished: int = 0
    seconds: float = 0.0
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    places: list[NDArray[np.float64]] = field(default_factory=list)
    clicks: list[Points] = field(default_factory=list)
    points: Tensor | None = None


class _Share(NamedTuple):
    part: int
    last: bool
    views: list[View]
    finished: int


class BatchDataset(Dataset[LabelBatch]):
    """The batches of some parts, in order; the same whatever else is to be done.

    Args:
        parts: by number.
        batch_size: views of one part that go through the network together.
        spec: how the network is shown pictures.
        box_margin: see ``MaskOptions``.
        keep_pictures: give what the views show too.
        tiles: see :func:`deepmac.label.views.views_of`.
        read: gives a picture, instead of its file.
    """

    def __init__(
        self,
        parts: dict[int, list[ImageTask]],
        *,
        batch_size: int,
        spec: InputSpec,
        box_margin: float = 0.0,
        keep_pictures: bool = False,
        tiles: bool = False,
        read: Callable[[ImageTask], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.read = read or _from_file
        self.keep_pictures = keep_pictures
        self.spec, self.box_margin = spec, box_margin
        self.shares: list[_Share] = []
        self._decoded: tuple[ImageTask, NDArray[np.uint8]] | None = None
        together = 1 if tiles else IMAGES_TOGETHER
        for number in sorted(parts):
            groups = groupby(parts[number], key=lambda task: task.position // together)
            for _, tasks in groups:
                views = [
                    views_of(task, spec.image_size, tiles=tiles, margin=box_margin)
                    for task in tasks
                ]
                ends = set(np.cumsum([len(some) for some in views]).tolist())
                flat = [view for some in views for view in some]
                step = batch_size if len(flat) == len(views) else max(batch_size, VIEWS_AT_ONCE)
                for start in range(0, len(flat), step):
                    stop = min(start + step, len(flat))
                    finished = sum(end in ends for end in range(start + 1, stop + 1))
                    self.shares.append(_Share(number, False, flat[start:stop], finished))
            if self.shares and self.shares[-1].part == number:
                self.shares[-1] = self.shares[-1]._replace(last=True)

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, index: int) -> LabelBatch:
        """Read the pictures of one batch."""
        started = time.perf_counter()
        share = self.shares[index]
        good: list[ImageTask] = []
        images, asked, scaled = [], [], []
        errors, pictures, places = [], [], []
        clicks, scaled_clicks = [], []
        for view in share.views:
            task = view.task
            try:
                pixels = self._pixels(task)
            except ImageFileError as error:
                errors.append((task, error.kind, str(error)))
                continue
            shown, boxes, within, marks = self._shown(view, pixels)
            entry = self.spec.letterbox(shown)
            good.append(task)
            images.append(entry.image)
            asked.append(boxes)
            scaled.append(scaled_boxes(within, shown.shape[:2], entry.true_size))
            clicks.append(marks)
            scaled_clicks.append(scaled_points(marks, shown.shape[:2], entry.true_size))
            if self.keep_pictures:
                pictures.append(shown)
                places.append(within)
        padded, valid = _padded(scaled)
        return LabelBatch(
            share.part,
            share.last,
            good,
            images,
            asked,
            padded,
            valid,
            errors,
            share.finished,
            time.perf_counter() - started,
            pictures,
            places,
            clicks,
            _padded_clicks(scaled_clicks, padded.shape[1]),
        )

    def _pixels(self, task: ImageTask) -> NDArray[np.uint8]:
        """The picture; one that has many views is decoded once."""
        if self._decoded is None or self._decoded[0].position != task.position:
            self._decoded = None
            self._decoded = task, self.read(task)
        return self._decoded[1]

    def _shown(
        self, view: View, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], Points]:
        """What the network is shown; boxes in the picture; boxes and clicks in what is shown."""
        task = view.task
        if task.degrees.any():
            boxes = enlarged(task.boxes, self.box_margin)
            shown, within, clicks = put_upright(view, pixels, boxes, self.spec.image_size)
            return shown, boxes, within, clicks
        boxes = enlarged(task.boxes, self.box_margin, task.size)
        corner = np.array(view.window[:2], dtype=np.float64)
        clicks = task.points - np.append(corner, 0)
        return cut(view, pixels), boxes, boxes - np.tile(corner, 2), clicks


def _from_file(task: ImageTask) -> NDArray[np.uint8]:
    return read_image(task.path, task.size)


def _padded_clicks(clicks: Sequence[Points], boxes: int) -> Tensor | None:
    most = max((some.shape[1] for some in clicks), default=0)
    if not most:
        return None
    padded = torch.full((len(clicks), boxes, most, 3), torch.nan)
    for row, own in enumerate(clicks):
        padded[row, : own.shape[0], : own.shape[1]] = torch.from_numpy(own.astype(np.float32))
    return padded


def _padded(boxes: Sequence[NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, boxes), default=0)
    padded = torch.zeros(len(boxes), longest, 4)
    valid = torch.zeros(len(boxes), longest, dtype=torch.bool)
    for row, own in enumerate(boxes):
        padded[row, : len(own)] = torch.from_numpy(own.astype(np.float32))
        valid[row, : len(own)] = True
    return padded, valid

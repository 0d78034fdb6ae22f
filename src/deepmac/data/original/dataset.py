"""Samples as the TensorFlow original trains on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from deepmac.data.annotations.records import ImageRecord, Instance
from deepmac.data.batch import Sample
from deepmac.data.dataset import CocoInstances
from deepmac.data.original.source_pixels import SourcePixels
from deepmac.data.original.targets import original_targets
from deepmac.data.original.transforms import (
    original_evaluation_transform,
    original_training_transform,
)
from deepmac.nn.conventions import Conventions


def data_set_of(conventions: Conventions) -> type[CocoInstances]:
    """The kind of data set that a network of these conventions learns from."""
    return OriginalInstances if conventions.data == "original" else CocoInstances


class OriginalInstances(CocoInstances):
    """Crowd regions are objects like others, and slivers of objects stay however small.

    Targets come from masks that moved along as whole pixels; those of full resolution are uint8
    pixels of the whole input, (n, H, W). Jitter moves edges by shares of the box's *half* side, as
    ``random_jitter_boxes`` does. Of too many objects the first ones stay.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.max_roi_jitter_ratio /= 2

    @staticmethod
    def training_transform(size: int, **settings: Any) -> v2.Transform:
        """See :func:`original_training_transform`."""
        return original_training_transform(size, **settings)

    @staticmethod
    def evaluation_transform(size: int) -> v2.Transform:
        """See :func:`original_evaluation_transform`."""
        return original_evaluation_transform(size)

    @staticmethod
    def choice(sample: Sample, slots: int) -> Tensor:
        """The first ones."""
        return torch.arange(slots)

    def _objects(self, record: ImageRecord) -> tuple[list[Instance], list[Instance]]:
        return (list(record.instances), []) if self.training else super()._objects(record)

    def _framed(self, pixels: NDArray[np.uint8], objects: list[Instance]) -> dict[str, Any]:
        source = SourcePixels.identity(*pixels.shape[:2])
        return {**super()._framed(pixels, objects), "pixels": source}

    def _large_enough(self, sides: Tensor) -> Tensor:
        return sides > 0

    def _targets(
        self,
        objects: list[Instance],
        mask_valid: Tensor,
        mask_boxes: Tensor,
        transformed: dict[str, Any],
        original_size: tuple[int, int],
    ) -> Tensor:
        size = self.targets.mask_size
        targets = torch.zeros(len(objects), size, size)
        if self.targets.full_resolution:
            canvas = transformed["geometry"].canvas_size
            targets = torch.zeros(len(objects), *canvas, dtype=torch.uint8)
        masked = [item for item, is_masked in zip(objects, mask_valid, strict=True) if is_masked]
        if masked:
            targets[mask_valid] = original_targets(
                masked,
                mask_boxes[mask_valid],
                transformed["pixels"],
                original_size,
                None if self.targets.full_resolution else size,
            )
        return targets

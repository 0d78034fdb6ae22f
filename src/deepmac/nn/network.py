"""What Deep-MAC and Deep-MARC have in common for those who use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepmac.nn.centernet import Detections
from deepmac.nn.conventions import Conventions


class SegmentationNetwork(Protocol):
    """Boxes, classes and masks from one pass over the images; masks of any boxes besides.

    ``network(images)`` gives stages, the best last; a stage is all that is kept of the images.

    Attributes:
        detector: whether :meth:`detect` finds anything; masks of given boxes work either way.
        conventions: today's, or those of a TensorFlow original.
        num_classes: class slots.
        max_detections: boxes that :meth:`detect` gives for each image.
    """

    detector: bool
    conventions: Conventions
    num_classes: int
    max_detections: int

    def __call__(self, images: Tensor) -> Sequence[Any]:
        """(B, 3, H, W) RGB, uint8 or float in 0..255, to the stages."""
        ...

    def last_stage(self, images: Tensor) -> Any:
        """The last stage alone; what of it is read is computed when it is, and nothing else."""
        ...

    def detect(self, stage: Any, true_sizes: Tensor | None = None) -> Detections:
        """The best boxes of each image, clipped to ``true_sizes`` (B, 2) (height, width)."""
        ...

    def mask_probabilities(
        self,
        stage: Any,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """(B, N, S, S) probabilities over the :meth:`mask_frames` of (B, N, 4) xyxy boxes.

        Only rows that are ``valid`` (B, N) mean something. ``labels`` (B, N) class slots are read
        by networks with one mask per class alone.
        """
        ...

    def mask_frames(self, boxes: Tensor) -> Tensor:
        """(..., 4) xyxy: what the masks of boxes cover, in the pixels of the boxes."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """As every torch module's."""
        ...


def static_shapes(tensor: Tensor) -> bool:
    """Whether shapes must not depend on data: on XLA, under compile, export and tracing."""
    return tensor.device.type == "xla" or torch.compiler.is_compiling() or torch.jit.is_tracing()

"""What Deep-MAC and Deep-MARC have in common: the one notion of a network in this project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from deepmac.errors import UserError
from deepmac.nn.backbones import Normalize
from deepmac.nn.centernet import Detections
from deepmac.nn.clicks import Clicks
from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.edge_head import EdgeHead
from deepmac.nn.ranges import check_sides
from deepmac.nn.roi_crop import grow_boxes


class SegmentationNetwork(nn.Module, ABC):
    """Boxes, classes and masks from one pass over the images; masks of any boxes besides.

    ``network(images)`` gives stages, the best last; a stage is all that is kept of the images, and
    each network's own business.

    Attributes:
        backbone: with ``size_divisor``, what both sides of the images must be multiples of.
        normalize: of the pixels.
        num_classes: class slots.
        stride: input pixels per cell of the finest map.
        mask_size: side of the mask head's answer, cells.
        frame_scale: side of what masks cover, in boxes: see :meth:`mask_frames`.
        max_detections: boxes that :meth:`detect` gives for each image.
        detector: whether :meth:`detect` finds anything; masks of given boxes work either way.
        edge_head: what puts its masks' edges where the picture's are; None where it has none.
        conventions: today's, or those of a TensorFlow original.
        card: what is known of it beside its weights, a ``deepmac.models.card.ModelCard``; None
            where it did not come from a file.
        prepared: what a copy of :func:`deepmac.nn.inference.for_inference` computes in; None for
            other networks.
    """

    backbone: Any
    normalize: Normalize
    num_classes: int
    stride: int
    mask_size: int
    frame_scale: float
    max_detections: int
    detector: bool = True
    edge_head: EdgeHead | None
    conventions: Conventions = TODAY
    card: object | None = None
    prepared: Literal["32", "bf16"] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.edge_head = None

    @abstractmethod
    def last_stage(self, images: Tensor) -> Any:
        """The last stage alone; what of it is read is computed when it is, and nothing else.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..255.
        """

    @abstractmethod
    def detect(self, stage: Any, true_sizes: Tensor | None = None) -> Detections:
        """The best boxes of each image, clipped to ``true_sizes`` (B, 2) (height, width)."""

    @abstractmethod
    def mask_probabilities(
        self,
        stage: Any,
        boxes: Tensor,
        valid: Tensor | None = None,
        labels: Tensor | None = None,
        clicks: Clicks | None = None,
    ) -> Tensor:
        """(B, N, P, P) foreground probabilities over the :meth:`mask_frames` of boxes.

        Args:
            stage: of the images.
            boxes: (B, N, 4) xyxy in input pixels.
            valid: (B, N) bool; other rows mean nothing.
            labels: (B, N) int64 class slots, which only networks with a mask per class read.
            clicks: points on the boxes' objects and beside them.

        Raises:
            UserError: clicks, where not :attr:`takes_clicks`.
        """

    @property
    def takes_clicks(self) -> bool:
        """Whether masks can be corrected by points."""
        return False

    def require_clicks(self) -> None:
        """Refuse points that would change nothing.

        Raises:
            UserError: masks cannot be corrected by points.
        """
        if not self.takes_clicks:
            raise UserError(
                "this model has no click head, so that points would change nothing: leave them "
                "out, take a model that has one, or train one (experiment=deepmac_lite_clicks)"
            )

    @property
    def answer_size(self) -> int:
        """P, the side of :meth:`mask_probabilities`."""
        return self.mask_size

    @abstractmethod
    def inference_parts(self) -> list[nn.Module]:
        """Where the convolutions are that an answer needs; all else is cheap."""

    def mask_frames(self, boxes: Tensor) -> Tensor:
        """(..., 4) what the masks of (..., 4) xyxy boxes cover, in the same pixels."""
        return grow_boxes(boxes, self.frame_scale)

    def features(self, images: Tensor) -> Any:
        """What the backbone makes of (B, 3, H, W) RGB images, uint8 or float in 0..255.

        Raises:
            ValueError: H or W is no multiple of ``backbone.size_divisor``.
        """
        check_sides(images, self.backbone.size_divisor, "this backbone")
        return self.backbone(self.normalize(images))

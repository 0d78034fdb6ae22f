"""What is exported: a network as plain functions of tensors, with the shapes that are free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from deepmac.class_map import ClassMap
from deepmac.export.deepmarc_detect import StaticTwoStage
from deepmac.nn.centernet import Detections
from deepmac.nn.clicks import Clicks
from deepmac.nn.deepmarc.model import DeepMARC
from deepmac.nn.network import SegmentationNetwork


@dataclass(frozen=True)
class Graph:
    """A function of tensors and how to trace it.

    Attributes:
        name: of the file.
        module: takes ``inputs`` in their order.
        inputs: example tensors by name.
        free: the free dimensions of every input, as ``torch.export`` takes them.
        outputs: names of what comes out.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    free: dict[str, dict[int, Any]]
    outputs: tuple[str, ...]


class BoxesGraph(nn.Module):
    """Pictures and boxes to the foreground probabilities within every box."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """(B, 3, H, W) float RGB in 0..255 and (B, N, 4) xyxy input pixels -> (B, N, S, S)."""
        masks: Tensor = self.network.mask_probabilities(self.network.last_stage(images), boxes)
        return masks


class ClicksGraph(nn.Module):
    """Pictures, boxes and clicks to the foreground probabilities within every box."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
        """As ``BoxesGraph``, corrected by clicks.

        Args:
            images: (B, 3, H, W) float RGB in 0..255.
            boxes: (B, N, 4) xyxy input pixels.
            points: (B, N, K, 3) x, y in input pixels, and 1 on the object or 0 beside it; NaN where
                there is no further one.

        Returns:
            (B, N, S, S).
        """
        batch, _, number = points.shape[:3]
        # onnxruntime reduces over nothing wrongly: there always is a box, the last, without clicks.
        boxes = torch.cat([boxes, boxes.new_zeros(batch, 1, 4)], dim=1)
        points = torch.cat([points, points.new_full((batch, 1, number, 3), torch.nan)], dim=1)
        clicks = Clicks(points[..., :2], points[..., 2])
        stage = self.network.last_stage(images)
        masks = self.network.mask_probabilities(stage, boxes, clicks=clicks)
        return masks[:, :-1]


class DetectGraph(nn.Module):
    """Pictures to boxes, category ids, scores and masks."""

    category_ids: Tensor

    def __init__(self, network: SegmentationNetwork, class_map: ClassMap | None) -> None:
        super().__init__()
        self.network = network
        if isinstance(network, DeepMARC):
            self.detect: Callable[..., Detections] = StaticTwoStage(network)
        else:
            self.detect = network.detect
        slots = range(network.num_classes) if class_map is None else class_map.category_ids
        self.register_buffer("category_ids", torch.tensor(list(slots), dtype=torch.int64))

    def forward(self, images: Tensor, true_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every picture's best K objects, best first; a score of 0 is no detection.

        Args:
            images: (B, 3, H, W) float RGB in 0..255.
            true_sizes: (B, 2) int64 (height, width) of the content, without padding.

        Returns:
            (B, K, 4) xyxy input pixels, (B, K) category ids, (B, K) scores, (B, K, S, S).
        """
        stage = self.network.last_stage(images)
        found = self.detect(stage, true_sizes)
        masks = self.network.mask_probabilities(stage, found.boxes, labels=found.labels)
        return found.boxes, self.category_ids[found.labels], found.scores, masks


def boxes_graph(network: SegmentationNetwork, size: int | None) -> Graph:
    """``BoxesGraph`` with any number of pictures and boxes, none included.

    Args:
        network: in eval mode.
        size: side of the pictures; None leaves both sides free.
    """
    images, free = _pictures(network, size)
    height, width = images.shape[-2:]
    boxes = torch.tensor([[2.0, 1.0, width / 2, height / 2], [1, 2, width - 2, height - 1]])
    return Graph(
        name="boxes",
        module=BoxesGraph(network),
        inputs={"images": images, "boxes": torch.stack([boxes, boxes.flip(0)]).repeat(1, 3, 1)},
        free={"images": free, "boxes": {0: free[0], 1: Dim("boxes", min=0)}},
        outputs=("masks",),
    )


def clicks_graph(network: SegmentationNetwork, size: int | None) -> Graph:
    """``ClicksGraph`` with one click or more a box, which may be none; else as ``boxes_graph``."""
    graph = boxes_graph(network, size)
    middle = graph.inputs["boxes"].unflatten(-1, (2, 2)).mean(dim=2)
    click = torch.cat([middle, torch.ones_like(middle[..., :1])], dim=-1)
    points = torch.stack([click, click * torch.tensor([0.9, 0.9, 0.0])], dim=2)
    points[:, 0] = torch.nan  # a box without clicks
    free = {**graph.free["boxes"], 2: Dim("points", min=1)}
    return replace(
        graph,
        name="clicks",
        module=ClicksGraph(network),
        inputs={**graph.inputs, "points": points},
        free={**graph.free, "points": free},
    )


def detect_graph(
    network: SegmentationNetwork, class_map: ClassMap | None, size: int | None
) -> Graph:
    """``DetectGraph`` with any number of pictures (Deep-MARC: one); else as in ``boxes_graph``."""
    images, free = _pictures(network, size)
    height, width = images.shape[-2:]
    true_sizes = torch.tensor([[height, width], [height - 3, width - 5]])
    if isinstance(network, DeepMARC):
        images, true_sizes = images[1:], true_sizes[1:]
        del free[0]
    return Graph(
        name="detect",
        module=DetectGraph(network, class_map),
        inputs={"images": images, "true_sizes": true_sizes},
        free={"images": free, "true_sizes": {0: free[0]} if 0 in free else {}},
        outputs=("boxes", "labels", "scores", "masks"),
    )


def _pictures(network: SegmentationNetwork, size: int | None) -> tuple[Tensor, dict[int, Any]]:
    """Two random pictures of soft blobs; the sides are multiples of the network's divisor."""
    divisor = int(network.backbone.size_divisor)
    # Sides of 1 or equal sides would be taken for constants.
    units = max(2, -(-96 // divisor))
    sides = (size, size) if size else (units * divisor, (units + 1) * divisor)
    free: dict[int, Any] = {0: Dim("batch", min=1)}
    if size is None:
        free |= {2: divisor * Dim("height_units", min=1), 3: divisor * Dim("width_units", min=1)}
    return blobs(2, *sides), free


def blobs(count: int, height: int, width: int) -> Tensor:
    """(count, 3, height, width) float pictures in 0..255, always the same."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    fine = torch.rand(count, 3, height, width, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 215 + fine * 40).round()

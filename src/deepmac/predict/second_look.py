"""More looks at a picture for masks of given boxes: mirrored, and closer at small objects.

Probabilities of all looks are averaged; a network is never asked for anything but masks of boxes.
``finer_crops`` is what the rest of the package calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac.losses.grids import inside_boxes
from deepmac.models.refining import Refine
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.points import Points, clicks_of
from deepmac.predict.refine import (
    AT_ONCE,
    COARSE,
    FEW_PIXELS,
    GRID,
    refine_edges,
    resize_cells,
    sample_picture,
)

SMALL = 128
"""Objects with both sides below this many pixels of the network's input are looked at closer."""
_WINDOW = 224
"""Side of the window that a closer look shows the network, pixels."""
_CONTEXT = 2.5
"""Side of the window relative to the object's longer one."""
_CLOSER_WEIGHT = 0.6
"""Of the closer look in the mean with the others."""
_WINDOWS = 8
"""Those that go through the backbone together."""


@torch.inference_mode()
def finer_crops(
    network: SegmentationNetwork,
    crops: NDArray[np.float32],
    boxes: NDArray[np.float64],
    picture: NDArray[np.uint8],
    *,
    refine: Refine,
    threshold: float,
    spec: InputSpec,
    points: Points | None = None,
) -> NDArray[np.float32]:
    """A network's masks of one picture's boxes, refined as asked.

    Args:
        network: in eval mode.
        crops: (N, S, S) its probabilities over the boxes' frames.
        boxes: (N, 4) xyxy in pixels of the picture.
        picture: (H, W, 3) uint8 RGB.
        refine: see ``deepmac.models.refining``.
        threshold: what is above it belongs to a mask.
        spec: how the network was shown the picture.
        points: (N, K, 3) clicks in pixels of the picture.

    Returns:
        (N, G, G) probabilities over the same frames, none of them beyond their box.
    """
    if refine == "none" or not len(crops):
        return crops
    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    corners = torch.from_numpy(boxes)
    frames = network.mask_frames(corners)
    values = torch.from_numpy(crops)
    if refine == "full":
        clicks = None if points is None else torch.from_numpy(points)
        values = _looks(network, values, corners, picture, pixels, spec, clicks)
    finer = torch.zeros(len(values), GRID, GRID)
    few_pixels = (frames[:, 2:] - frames[:, :2]).amax(1) <= FEW_PIXELS
    for grid, rows in ((COARSE, few_pixels.nonzero()), (GRID, (~few_pixels).nonzero())):
        for some in rows.flatten().split(AT_ONCE[grid]):
            found = refine_edges(
                values[some],
                frames[some],
                pixels,
                threshold=threshold,
                boxes=corners[some],
                grid=grid,
                edge_head=network.edge_head,
            )
            finer[some] = _on_the_finest_grid(found, corners[some], frames[some])
    return finer.numpy()


def _on_the_finest_grid(masks: Tensor, boxes: Tensor, frames: Tensor) -> Tensor:
    """(N, GRID, GRID) of masks that may have fewer cells."""
    if masks.shape[-1] == GRID:
        return masks
    return resize_cells(masks, GRID) * inside_boxes(boxes, frames, (GRID, GRID)).float()


def _looks(
    network: SegmentationNetwork,
    crops: Tensor,
    boxes: Tensor,
    picture: NDArray[np.uint8],
    pixels: Tensor,
    spec: InputSpec,
    points: Tensor | None,
) -> Tensor:
    entry = spec.letterbox(picture)
    height, width = entry.true_size
    scale = torch.tensor([width / picture.shape[1], height / picture.shape[0]]).repeat(2)
    inputs = (boxes * scale).float()
    device = next(network.parameters()).device
    clicks = None if points is None else _moved(points, scale[:2])[None].to(device)
    mirror = mirrored(network, entry.image.to(device), inputs[None].to(device), width, clicks).cpu()
    looks = (crops + mirror) / 2
    small = (inputs[:, 2:] - inputs[:, :2]).amax(1) < SMALL
    if small.any():
        some = None if points is None else points[small]
        close = closer(network, pixels, boxes[small], some).cpu()
        looks[small] = (1 - _CLOSER_WEIGHT) * looks[small] + _CLOSER_WEIGHT * close
    return looks


def mirrored(
    network: SegmentationNetwork,
    images: Tensor,
    boxes: Tensor,
    width: int,
    points: Tensor | None = None,
) -> Tensor:
    """Masks as the network sees them in a mirror, turned back.

    Args:
        network: in eval mode.
        images: (1, 3, H, W) uint8, padded at the bottom and right.
        boxes: (1, N, 4) xyxy in input pixels.
        width: of the content in ``images``.
        points: (1, N, K, 3) clicks in input pixels.

    Returns:
        (N, S, S) probabilities over the boxes' frames.
    """
    flipped = images.clone()
    flipped[..., :width] = images[..., :width].flip(-1)
    x0, y0, x1, y1 = boxes.unbind(-1)
    turned = torch.stack([width - x1, y0, width - x0, y1], -1)
    stage = network.last_stage(flipped)
    clicks = None if points is None else _in_mirror(points, width)
    answer: Tensor = _asked(network, stage, turned, clicks)[0].flip(-1)
    return answer


def closer(
    network: SegmentationNetwork, picture: Tensor, boxes: Tensor, points: Tensor | None = None
) -> Tensor:
    """Masks from a window of each box, enlarged out of the full picture, seen both ways round.

    Args:
        network: in eval mode.
        picture: (3, H, W) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the picture.
        points: (N, K, 3) clicks likewise.

    Returns:
        (N, S, S) probabilities over the boxes' frames.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True).clamp(min=2) * (_CONTEXT / 2)
    windows = torch.cat([centre - half, centre + half], 1)
    origin = windows[:, [0, 1, 0, 1]]
    inside = ((boxes - origin) * (_WINDOW / (2 * half))).float()
    device = next(network.parameters()).device
    answers = []
    for start in range(0, len(boxes), _WINDOWS):
        some = slice(start, start + _WINDOWS)
        pixels = (sample_picture(picture, windows[some], _WINDOW) * 255).round().to(torch.uint8)
        x0, y0, x1, y1 = inside[some].unbind(1)
        turned = torch.stack([_WINDOW - x1, y0, _WINDOW - x0, y1], 1)
        both = torch.cat([pixels, pixels.flip(-1)]).to(device)
        asked = torch.cat([inside[some], turned]).to(device)
        clicks = None
        if points is not None:
            to_window = (_WINDOW / (2 * half[some]))[:, :, None]
            plain = _moved(points[some], to_window, origin[some, None, :2])
            clicks = torch.cat([plain, _in_mirror(plain, _WINDOW)])[:, None].to(device)
        probabilities = _asked(network, network.last_stage(both), asked[:, None], clicks)[:, 0]
        straight, mirror = probabilities.chunk(2)
        answers.append((straight + mirror.flip(-1)) / 2)
    return torch.cat(answers)


def _asked(
    network: SegmentationNetwork, stage: Any, boxes: Tensor, points: Tensor | None
) -> Tensor:
    return network.mask_probabilities(stage, boxes, clicks=clicks_of(points)).float()


def _moved(points: Tensor, scale: Tensor, origin: Tensor | float = 0.0) -> Tensor:
    """(..., 3) clicks in other pixels."""
    return torch.cat([(points[..., :2] - origin) * scale, points[..., 2:]], dim=-1).float()


def _in_mirror(points: Tensor, width: int) -> Tensor:
    x, y, label = points.unbind(-1)
    return torch.stack([width - x, y, label], dim=-1)

"""From a picture of any size to the padded square that a network sees.

Networks of this project get the training's own letterbox. Converted ones (``compat``) get that of
TensorFlow 1: source position ``i * in / out`` without a half-pixel offset, no antialiasing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepmac.nn.norm import Compat


class NetworkInput(NamedTuple):
    """A picture as a network takes it.

    Attributes:
        image: (1, 3, size, size) RGB in 0..255; uint8, or float32 for a ``compat`` network. Padded
            with 0 at the bottom and right.
        true_size: (height, width) of the content.
    """

    image: Tensor
    true_size: tuple[int, int]


def letterbox(image: NDArray[np.uint8], size: int, compat: Compat = None) -> NetworkInput:
    """Scale the longer side to ``size`` pixels and pad to a square.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of the square.
        compat: the network's.
    """
    if compat is None:
        return _house_letterbox(image, size)
    height, width = legacy_scaled_size(image.shape[0], image.shape[1], size)
    square = np.zeros((size, size, 3), dtype=np.float32)
    square[:height, :width] = legacy_resize_bilinear(image, height, width)
    return NetworkInput(torch.from_numpy(square).permute(2, 0, 1)[None], (height, width))


def _house_letterbox(image: NDArray[np.uint8], size: int) -> NetworkInput:
    from torchvision import tv_tensors

    from deepmac.data.geometry import Geometry
    from deepmac.data.transforms import evaluation_transform

    pixels = tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    square, geometry = evaluation_transform(size)(pixels, Geometry.identity(*image.shape[:2]))
    return NetworkInput(square.as_subclass(Tensor)[None], geometry.true_size)


def legacy_scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """The original's scaled (height, width), rounded as its float32 arithmetic does."""
    factor = np.float32(size) / np.float32(max(height, width))
    sides = [max(1, int(np.round(np.float32(side) * factor))) for side in (height, width)]
    return sides[0], sides[1]


def legacy_resize_bilinear(image: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """TensorFlow 1's ``resize_bilinear``: (H, W, C) to (height, width, C) float32."""
    top, bottom, y = _neighbours(image.shape[0], height)
    left, right, x = _neighbours(image.shape[1], width)
    x = x[None, :, None]
    pixels = image.astype(np.float32)
    columns = pixels[:, left] + (pixels[:, right] - pixels[:, left]) * x
    rows: NDArray[np.float32] = columns[top] + (columns[bottom] - columns[top]) * y[:, None, None]
    return rows


def legacy_resize_nearest(mask: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """TensorFlow 1's ``resize_nearest_neighbor`` of the last two axes, (..., H, W)."""
    rows, columns = nearest_pixels(mask.shape[-2], height), nearest_pixels(mask.shape[-1], width)
    return mask[..., rows[:, None], columns]


def nearest_pixels(before: int, after: int) -> NDArray[np.intp]:
    """(after,): which of ``before`` pixels each pixel of the resized side takes, nearest."""
    return _neighbours(before, after)[0]


def _neighbours(
    before: int, after: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Source pixels on either side of every new pixel, and its share of the second."""
    position = np.arange(after, dtype=np.float32) * (np.float32(before) / np.float32(after))
    first = np.minimum(np.floor(position).astype(np.intp), before - 1)
    share = position - first.astype(np.float32)
    return first, np.minimum(first + 1, before - 1), share

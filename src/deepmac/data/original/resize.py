"""Resizing of TensorFlow 1: source position ``i * in / out``, no half pixel, no antialiasing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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

"""From a picture of any size to the padded square that a network sees.

Networks get the training's own letterbox, those with the original's conventions that of
TensorFlow 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from deepmac.data.original.resize import legacy_resize_bilinear, legacy_scaled_size
from deepmac.data.transforms.compose import evaluation_transform
from deepmac.data.transforms.geometry import Geometry
from deepmac.nn.conventions import TODAY, Conventions


class NetworkInput(NamedTuple):
    """A picture as a network takes it.

    Attributes:
        image: (1, 3, size, size) RGB in 0..255; uint8, or float32 of TensorFlow 1's
            letterbox. Padded with 0 at the bottom and right.
        true_size: (height, width) of the content.
    """

    image: Tensor
    true_size: tuple[int, int]


def letterbox(
    image: NDArray[np.uint8], size: int, conventions: Conventions = TODAY
) -> NetworkInput:
    """Scale the longer side to ``size`` pixels and pad to a square.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of the square.
        conventions: the network's.
    """
    if conventions.letterbox == "antialiased":
        return _house_letterbox(image, size)
    height, width = legacy_scaled_size(image.shape[0], image.shape[1], size)
    square = np.zeros((size, size, 3), dtype=np.float32)
    square[:height, :width] = legacy_resize_bilinear(image, height, width)
    return NetworkInput(torch.from_numpy(square).permute(2, 0, 1)[None], (height, width))


def _house_letterbox(image: NDArray[np.uint8], size: int) -> NetworkInput:
    pixels = tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    square, geometry = evaluation_transform(size)(pixels, Geometry.identity(*image.shape[:2]))
    return NetworkInput(square.as_subclass(Tensor)[None], geometry.true_size)

"""From a picture of any size to the padded rectangle that a network sees.

Networks get the training's own letterbox, those with the original's conventions that of
TensorFlow 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from deepmac.data.original.resize import legacy_resize_bilinear, legacy_scaled_size
from deepmac.data.transforms.compose import evaluation_transform
from deepmac.data.transforms.geometry import Geometry
from deepmac.errors import UserError
from deepmac.models.card import InputShape
from deepmac.models.files import card_of
from deepmac.nn.conventions import TODAY, Conventions
from deepmac.nn.network import SegmentationNetwork

FALLBACK_SIZE = 512
"""Side of a network's input where nothing says it."""
FRAME_STEP = 64
"""Sides of a picture-shaped input are multiples of it: convolutions are prepared anew for every
shape, and this keeps them few."""
_MOST_STRETCHED = 4.0
"""Ratio of the sides from which on a picture-shaped input gets no longer."""


class NetworkInput(NamedTuple):
    """A picture as a network takes it.

    Attributes:
        image: (1, 3, height, width) RGB in 0..255; uint8, or float32 of TensorFlow 1's
            letterbox. Padded with 0 at the bottom and right.
        true_size: (height, width) of the content.
    """

    image: Tensor
    true_size: tuple[int, int]


@dataclass(frozen=True)
class InputSpec:
    """How pictures are shown to one network.

    Attributes:
        image_size: side of the square, in pixels.
        shape: ``square``, or ``picture``: about as many pixels in about the picture's own shape.
        conventions: the network's.
        divisor: sides must be multiples of it.
    """

    image_size: int = FALLBACK_SIZE
    shape: InputShape = "square"
    conventions: Conventions = TODAY
    divisor: int = 1

    @classmethod
    def of(cls, network: SegmentationNetwork, image_size: int | None = None) -> InputSpec:
        """A network's own.

        Args:
            network: best from ``deepmac.load_model``.
            image_size: another one than the model's.
        """
        card = card_of(network)
        return cls(
            image_size or (card.image_size if card else FALLBACK_SIZE),
            card.input_shape if card else "square",
            network.conventions,
            int(network.backbone.size_divisor),
        )

    @property
    def step(self) -> int:
        """What sides of a picture-shaped input are multiples of."""
        return math.lcm(FRAME_STEP, self.divisor)

    def squared(self) -> InputSpec:
        """The same in one shape for all pictures, as devices with static shapes want it."""
        return replace(self, shape="square")

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the input for a picture of (height, width) ``size``."""
        if self.shape == "square":
            return self.image_size, self.image_size
        stretch = math.sqrt(min(max(size[0] / size[1], 1 / _MOST_STRETCHED), _MOST_STRETCHED))
        sides = self.image_size * stretch, self.image_size / stretch
        height, width = (max(1, round(side / self.step)) * self.step for side in sides)
        return height, width

    def letterbox(self, image: NDArray[np.uint8]) -> NetworkInput:
        """A picture (H, W, 3), uint8 RGB, as the network takes it."""
        return letterbox(image, self.frame(image.shape[:2]), self.conventions)


def letterbox(
    image: NDArray[np.uint8], frame: int | tuple[int, int], conventions: Conventions = TODAY
) -> NetworkInput:
    """Scale a picture until it just fits and pad it.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: side of the square, or (height, width).
        conventions: the network's. TensorFlow 1's letterbox knows squares alone.

    Raises:
        UserError: it is asked for another shape.
    """
    if conventions.letterbox == "antialiased":
        return _house_letterbox(image, frame)
    size = frame if isinstance(frame, int) else frame[0]
    if frame not in (size, (size, size)):
        raise UserError(
            "the model's card says `input_shape: picture`, but its network follows the original, "
            "whose letterbox knows squares alone: make it `input_shape: square`"
        )
    height, width = legacy_scaled_size(image.shape[0], image.shape[1], size)
    square = np.zeros((size, size, 3), dtype=np.float32)
    square[:height, :width] = legacy_resize_bilinear(image, height, width)
    return NetworkInput(torch.from_numpy(square).permute(2, 0, 1)[None], (height, width))


def _house_letterbox(image: NDArray[np.uint8], frame: int | tuple[int, int]) -> NetworkInput:
    pixels = tv_tensors.Image(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    padded, geometry = evaluation_transform(frame)(pixels, Geometry.identity(*image.shape[:2]))
    return NetworkInput(padded.as_subclass(Tensor)[None], geometry.true_size)

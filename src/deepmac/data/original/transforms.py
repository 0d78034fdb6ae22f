"""The TensorFlow original's augmentations and letterbox to the letter: float32 throughout.

The house's own transforms (``transforms.py``) draw the same numbers; here pixels are never
rounded, resizing is TensorFlow 1's, and masks move as whole pixels (``SourcePixels``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from deepmac.data.original.resize import legacy_resize_bilinear, legacy_scaled_size, nearest_pixels
from deepmac.data.original.source_pixels import OUTSIDE, SourcePixels
from deepmac.data.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from deepmac.data.transforms.compose import RandomColor, RandomSquareCrop, square_crop
from deepmac.data.transforms.geometry import Geometry
from deepmac.errors import ConfigError


def original_training_transform(
    size: int,
    *,
    flip: float = 0.5,
    color: bool = True,
    crop_scale: tuple[float, float] | None = (0.6, 1.3),
    scale_jitter: tuple[float, float] | None = None,
) -> v2.Compose:
    """As ``transforms.training_transform``, in the original's arithmetic.

    Raises:
        ConfigError: a scale jitter, which the original has none of.
    """
    if scale_jitter is not None:
        raise ConfigError(
            f"data.scale_jitter={scale_jitter} is no augmentation of the original, which "
            "model.compat follows: set one of the two to null"
        )
    steps: list[v2.Transform] = []
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if color:
        steps.append(OriginalColor())
    if crop_scale is not None:
        steps.append(OriginalSquareCrop(min_scale=crop_scale[0], max_scale=crop_scale[1]))
    return v2.Compose([*steps, OriginalLetterbox(size)])


def original_evaluation_transform(size: int) -> v2.Compose:
    """Nothing random: the whole image in a padded square of ``size`` pixels."""
    return v2.Compose([OriginalLetterbox(size)])


class OriginalColor(RandomColor):
    """The four changes one after the other in float32, 0..255, none of them rounded."""

    def transform(self, inpt: Any, params: dict[str, float]) -> Any:
        """Recolor an image, leave all else."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return tv_tensors.Image(original_color(inpt.as_subclass(Tensor), **params))


def original_color(
    image: Tensor, *, hue: float, contrast: float, saturation: float, brightness: float
) -> Tensor:
    """Hue, contrast, saturation, brightness of a (3, H, W) RGB image in 0..255, as float32."""
    unit = adjust_hue(image.float() / 255, hue).clamp(0, 1)
    unit = adjust_saturation(adjust_contrast(unit, contrast), saturation)
    return adjust_brightness(unit.clamp(0, 1), brightness) * 255


class OriginalSquareCrop(RandomSquareCrop):
    """``RandomSquareCrop`` that knows ``SourcePixels``."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut out one input."""
        if not isinstance(inpt, SourcePixels):
            return square_crop(inpt, **params)
        top, left, bottom, right = params["content"]
        rows = _window(params["top"], params["side"], top, bottom)
        columns = _window(params["left"], params["side"], left, right)
        return inpt.taken(rows, columns)


class OriginalLetterbox(v2.Transform):
    """Scale the longer side to ``size`` with TensorFlow 1's bilinear, pad bottom and right with 0.

    The image becomes float32; ``SourcePixels`` are scaled to the nearest.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The scaled (height, width)."""
        height, width = v2.query_size(flat_inputs)
        return {"scaled": legacy_scaled_size(height, width, self.size)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Scale and pad one input."""
        height, width = params["scaled"]
        if isinstance(inpt, SourcePixels):
            return inpt.taken(
                _scaled(len(inpt.rows), height, self.size),
                _scaled(len(inpt.columns), width, self.size),
            )
        if isinstance(inpt, tv_tensors.Image):
            pixels = inpt.as_subclass(Tensor).permute(1, 2, 0).numpy()
            square = torch.zeros(3, self.size, self.size)
            resized = torch.from_numpy(legacy_resize_bilinear(pixels, height, width))
            square[:, :height, :width] = resized.permute(2, 0, 1)
            return tv_tensors.Image(square)
        if isinstance(inpt, (tv_tensors.BoundingBoxes, Geometry)):
            scaled = F.resize(inpt, [height, width])
            return F.pad(scaled, [0, 0, self.size - width, self.size - height])
        return inpt


def _window(start: int, side: int, first: int, last: int) -> Tensor:
    """(side,) pixels from ``start`` on; those outside first..last - 1 are filled."""
    index = torch.arange(start, start + side)
    return torch.where((index >= first) & (index < last), index, OUTSIDE)


def _scaled(before: int, after: int, size: int) -> Tensor:
    """(size,) source pixel of each: ``after`` scaled ones, then padding."""
    index = torch.full((size,), OUTSIDE)
    index[:after] = torch.from_numpy(nearest_pixels(before, after))
    return index

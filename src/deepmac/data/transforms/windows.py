"""Training on windows around objects: more supervised objects a second than whole pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from deepmac.data.transforms.compose import RandomColor
from deepmac.data.transforms.geometry import Geometry
from deepmac.errors import ConfigError

MIN_VISIBLE = 0.4
"""Objects of which a window shows less than this share of the box are not learned from."""
_FILL = 0.85
"""Share of the window that the object fills at most."""


def window_transform(
    side: int, *, image_size: int, scale: tuple[float, float], flip: float, color: bool
) -> v2.Compose:
    """A window around an object, then the usual augmentations, on few pixels.

    Args:
        side: of the window, in pixels of the network's input.
        image_size: side of the inputs that the network will be used on.
        scale: see :class:`ObjectWindow`.
        flip: probability of a horizontal flip.
        color: hue, contrast, saturation and brightness.
    """
    steps: list[v2.Transform] = [ObjectWindow(side, image_size=image_size, scale=scale)]
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if color:
        steps.append(RandomColor())
    return v2.Compose(steps)


class ObjectWindow(v2.Transform):
    """Cut a square window around one object, drawn evenly, and scale it to ``side`` pixels.

    The scale is the one at which the whole picture fits a square of ``image_size``, times a factor
    drawn evenly in its logarithm; an object that would fill more than the window is shrunk until
    it fits. The window lies at random around the object and, where the picture is large enough,
    within the picture; else it is padded at the bottom and right, as the letterbox does. A picture
    without objects gives a window anywhere. Boxes are clipped.

    Args:
        side: of the window, in pixels of the network's input.
        image_size: side of the inputs that the network will be used on.
        scale: range of the factor.
    """

    def __init__(self, side: int, *, image_size: int, scale: tuple[float, float]) -> None:
        super().__init__()
        if side < 1 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(
                f"a window of {side} pixels at scales {scale[0]} to {scale[1]} cannot be cut: give "
                "a side of at least 1 and a range above 0, the smaller one first"
            )
        self.side, self.image_size, self.scale = side, image_size, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the object, the scale and the place."""
        height, width = v2.query_size(flat_inputs)
        low, high = (math.log(value) for value in self.scale)
        factor = math.exp(low + (high - low) * torch.rand(()).item())
        factor *= self.image_size / max(height, width)
        x0, y0, x1, y1 = _draw_box(flat_inputs, height, width)
        longest = max(x1 - x0, y1 - y0, 1.0)
        factor = min(factor, _FILL * self.side / longest)
        cut = max(1, round(self.side / factor))  # in pixels of the picture
        left, top = _place(x0, x1, cut, width), _place(y0, y1, cut, height)
        return {"top": top, "left": left, "cut": cut}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut one input out and scale it."""
        if not isinstance(
            inpt, (tv_tensors.Image, tv_tensors.BoundingBoxes, Geometry)
        ) and not F.is_pure_tensor(inpt):
            return inpt
        out = F.crop(inpt, params["top"], params["left"], params["cut"], params["cut"])
        return F.resize(out, [self.side, self.side], antialias=True)


def _draw_box(flat_inputs: list[Any], height: int, width: int) -> list[float]:
    """One of the boxes, or the picture's middle."""
    for one in flat_inputs:
        if isinstance(one, tv_tensors.BoundingBoxes) and len(one):
            drawn = int(torch.randint(len(one), ()).item())
            box: list[float] = one.as_subclass(Tensor)[drawn].tolist()
            return box
    return [width / 2, height / 2, width / 2, height / 2]


def _place(start: float, end: float, cut: int, length: int) -> int:
    """Where a window of ``cut`` that holds ``start`` to ``end`` begins on an axis."""
    low, high = sorted((end - cut, start))
    drawn = low + (high - low) * torch.rand(()).item()
    return min(max(0, round(drawn)), max(0, length - cut))

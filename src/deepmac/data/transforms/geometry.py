"""Where the pixels of the original image went: moves along with torchvision's v2 transforms.

Masks are never warped. An image's ``Geometry`` records flips, crops, scalings and paddings, and
each mask target is cut out of the original mask afterwards (``mask_targets.py``).
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from deepmac.errors import ConfigError

_NOT_AXIS_ALIGNED = ("rotate", "affine", "perspective", "elastic", "five_crop", "ten_crop")


class Geometry(tv_tensors.TVTensor):
    """Affine map from original pixels to current pixels, each axis for itself.

    A (2, 4) float64 tensor: rows y and x; columns scale (negative = flipped), offset, side of the
    canvas, side of the content (what padding at the bottom and right has not added). Pixel i covers
    [i, i + 1]: current = scale * original + offset. Put one into a sample next to the image and
    every torchvision v2 transform that keeps axes parallel moves it; others raise ConfigError.
    """

    def __new__(cls, rows: Any) -> "Geometry":
        return torch.as_tensor(rows, dtype=torch.float64).as_subclass(cls)

    @classmethod
    def identity(cls, height: int, width: int) -> "Geometry":
        """Of an image that nothing has been done to."""
        return cls([[1.0, 0.0, height, height], [1.0, 0.0, width, width]])

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(height, width) of the current image."""
        return self._sides(2)

    @property
    def true_size(self) -> tuple[int, int]:
        """(height, width) of the current image without padding at the bottom and right."""
        return self._sides(3)

    @property
    def affine(self) -> Tensor:
        """(2, 3) float32 on (x, y, 1), original to current pixels."""
        (scale_y, offset_y), (scale_x, offset_x) = self._scales()
        return torch.tensor([[scale_x, 0.0, offset_x], [0.0, scale_y, offset_y]])

    def to_original(self, boxes: Tensor) -> Tensor:
        """(N, 4) boxes xyxy of the current image in original pixels, float64.

        On a flipped axis the first edge comes back as the larger one.
        """
        (scale_y, offset_y), (scale_x, offset_x) = self._scales()
        offset = torch.tensor([offset_x, offset_y, offset_x, offset_y], dtype=torch.float64)
        scale = torch.tensor([scale_x, scale_y, scale_x, scale_y], dtype=torch.float64)
        return (boxes.as_subclass(Tensor).double() - offset) / scale

    def _sides(self, column: int) -> tuple[int, int]:
        vertical, horizontal = self.as_subclass(Tensor)[:, column].tolist()
        return int(vertical), int(horizontal)

    def _scales(self) -> list[list[float]]:
        scales: list[list[float]] = self.as_subclass(Tensor)[:, :2].tolist()
        return scales


def _moved(
    geometry: Geometry,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    offset: tuple[float, float] = (0.0, 0.0),
    canvas_size: tuple[int, int] | None = None,
    true_size: tuple[int, int] | None = None,
) -> Geometry:
    """Apply ``scale * position + offset``, all (y, x), and set new sizes."""
    rows = geometry.as_subclass(Tensor).tolist()
    for axis, row in enumerate(rows):
        row[0] *= scale[axis]
        row[1] = row[1] * scale[axis] + offset[axis]
        if canvas_size is not None:
            # A new canvas is content throughout unless told otherwise.
            row[2] = canvas_size[axis]
            row[3] = (true_size or canvas_size)[axis]
    return Geometry(rows)


@F.register_kernel(F.horizontal_flip, Geometry)
def _horizontal_flip(geometry: Geometry) -> Geometry:
    size = geometry.canvas_size
    return _moved(geometry, scale=(1.0, -1.0), offset=(0.0, size[1]), canvas_size=size)


@F.register_kernel(F.vertical_flip, Geometry)
def _vertical_flip(geometry: Geometry) -> Geometry:
    size = geometry.canvas_size
    return _moved(geometry, scale=(-1.0, 1.0), offset=(size[0], 0.0), canvas_size=size)


@F.register_kernel(F.crop, Geometry)
def _crop(geometry: Geometry, top: int, left: int, height: int, width: int) -> Geometry:
    return _moved(geometry, offset=(-top, -left), canvas_size=(height, width))


@F.register_kernel(F.center_crop, Geometry)
def _center_crop(geometry: Geometry, output_size: int | Sequence[int]) -> Geometry:
    sides = [output_size] if isinstance(output_size, int) else list(output_size)
    height, width = sides[0], sides[-1]
    canvas_height, canvas_width = geometry.canvas_size
    # torchvision pads the image to the crop first, the smaller half in front.
    if height > canvas_height:
        top = -((height - canvas_height) // 2)
    else:
        top = round((canvas_height - height) / 2)
    if width > canvas_width:
        left = -((width - canvas_width) // 2)
    else:
        left = round((canvas_width - width) / 2)
    return _crop(geometry, top, left, height, width)


@F.register_kernel(F.resize, Geometry)
def _resize(
    geometry: Geometry, size: list[int] | None, max_size: int | None = None, **_: Any
) -> Geometry:
    before, true = geometry.canvas_size, geometry.true_size
    # torchvision's rules for one side and max_size, asked of it.
    probe = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=before)
    after: tuple[int, int] = F.resize(probe, size, max_size=max_size).canvas_size
    scale = (after[0] / before[0], after[1] / before[1])
    content = (round(true[0] * scale[0]), round(true[1] * scale[1]))
    return _moved(geometry, scale=scale, canvas_size=after, true_size=content)


@F.register_kernel(F.resized_crop, Geometry)
def _resized_crop(
    geometry: Geometry, top: int, left: int, height: int, width: int, size: list[int], **_: Any
) -> Geometry:
    return _resize(_crop(geometry, top, left, height, width), size)


@F.register_kernel(F.pad, Geometry)
def _pad(geometry: Geometry, padding: int | Sequence[int], *_: Any, **__: Any) -> Geometry:
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = (sides * (4 // len(sides)))[:4]
    height, width = geometry.canvas_size
    true_height, true_width = geometry.true_size
    return _moved(
        geometry,
        offset=(top, left),
        canvas_size=(top + height + bottom, left + width + right),
        true_size=(top + true_height, left + true_width),
    )


def _refuse(geometry: Geometry, *_: Any, **__: Any) -> NoReturn:
    raise ConfigError(
        "this transform rotates, bends or multiplies the image, but mask targets are cut from the "
        "original masks by flips, crops, scalings and paddings only; remove it from the transforms."
    )


for _name in _NOT_AXIS_ALIGNED:
    F.register_kernel(_name, Geometry)(_refuse)

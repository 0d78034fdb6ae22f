"""Augmentations as torchvision v2 transforms; they mix freely with torchvision's own.

They work on any nest of tv_tensors: ``Image`` (uint8), ``BoundingBoxes``, ``Mask`` and
:class:`~deepmac.data.transforms.geometry.Geometry`, or on a bare image tensor. All draws come
from torch's global generator, as in torchvision; the data set seeds it for each sample.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from deepmac.data.transforms.color import distort_color, distort_color_packed
from deepmac.data.transforms.geometry import Geometry
from deepmac.errors import ConfigError


def training_transform(
    size: int,
    *,
    flip: float = 0.5,
    color: bool = True,
    crop_scale: tuple[float, float] | None = (0.6, 1.3),
    scale_jitter: tuple[float, float] | None = None,
) -> v2.Compose:
    """The original's augmentations in its order, then the padded square of ``size`` pixels.

    Args:
        size: side of the network input.
        flip: probability of a horizontal flip.
        color: hue, contrast, saturation and brightness.
        crop_scale: range of the square crop's side relative to the longer side; None = no crop.
        scale_jitter: Deep-MARC's instead of the crop: the image that just fits the square, times
            a factor from this range, cropped or padded to it at random.

    Raises:
        ConfigError: both a crop and a scale jitter.
    """
    if crop_scale is not None and scale_jitter is not None:
        raise ConfigError("crop_scale and scale_jitter both choose the scale: set one to null.")
    steps: list[v2.Transform] = []
    if flip > 0:
        steps.append(v2.RandomHorizontalFlip(flip))
    if color:
        steps.append(RandomColor())
    if crop_scale is not None:
        steps.append(RandomSquareCrop(min_scale=crop_scale[0], max_scale=crop_scale[1]))
    if scale_jitter is not None:
        steps.append(v2.ScaleJitter((size, size), scale_range=scale_jitter))
        steps.append(v2.RandomCrop(size, pad_if_needed=True))
    usual = color and crop_scale is not None
    return (AtOnce if usual else v2.Compose)([*steps, Letterbox(size)])


def evaluation_transform(size: int | tuple[int, int]) -> v2.Compose:
    """Nothing random: the whole image in a padded square, or a frame of (height, width) pixels."""
    return v2.Compose([Letterbox(size)])


class RandomColor(v2.Transform):
    """Hue, contrast, saturation, brightness, each drawn evenly, in the original's definitions.

    Unlike ``v2.ColorJitter``: contrast scales about each channel's mean, brightness is added, the
    order is fixed, and the image is rounded to uint8 once.

    Args:
        hue: largest rotation, in turns.
        contrast: range of the factor.
        saturation: range of the factor.
        brightness: largest amount added, on the 0..1 scale.
    """

    def __init__(
        self,
        *,
        hue: float = 0.02,
        contrast: tuple[float, float] = (0.8, 1.25),
        saturation: tuple[float, float] = (0.8, 1.25),
        brightness: float = 0.2,
    ) -> None:
        super().__init__()
        self.hue = hue
        self.contrast = contrast
        self.saturation = saturation
        self.brightness = brightness

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        """Draw the four amounts."""
        return {
            "hue": _uniform(-self.hue, self.hue),
            "contrast": _uniform(*self.contrast),
            "saturation": _uniform(*self.saturation),
            "brightness": _uniform(-self.brightness, self.brightness),
        }

    def transform(self, inpt: Any, params: dict[str, float]) -> Any:
        """Recolor an image, leave all else."""
        if not _is_image(inpt):
            return inpt
        return _like(distort_color(inpt.as_subclass(Tensor), **params), inpt)


class RandomSquareCrop(v2.Transform):
    """The original's ``random_square_crop_by_scale``; may reach out of the image (filled with 0).

    The side is one of ``num_scales`` evenly spaced shares of the longer side; the centre is an even
    draw from the pixels at least a border away from the edges. Kept from the original: the crop
    takes in twice half the side rounded down, and loses the image's last row or column where it
    reaches it. Boxes are clipped; one that lies outside is left with no area.
    """

    def __init__(
        self,
        *,
        min_scale: float = 0.6,
        max_scale: float = 1.3,
        num_scales: int = 8,
        max_border: int = 128,
    ) -> None:
        super().__init__()
        if not 0 < min_scale <= max_scale:
            raise ConfigError(
                f"the square crop's scales {min_scale}..{max_scale} are no range above 0; "
                "give the smaller one first."
            )
        # In float32 as the original; torch.linspace rounds by the number of threads.
        low, high = np.float32(min_scale), np.float32(max_scale)
        step = (high - low) / np.float32(max(1, num_scales - 1))
        self.scales = [float(low + step * np.float32(i)) for i in range(num_scales)]
        self.max_border = max_border

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw side and centre for the image at hand."""
        height, width = v2.query_size(flat_inputs)
        border_y, border_x = (
            crop_border(self.max_border, height),
            crop_border(self.max_border, width),
        )
        scale = self.scales[_integer(0, len(self.scales) - 1)]
        center_y = _integer(border_y, height - border_y)
        center_x = _integer(border_x, width - border_x)
        return square_crop_window(height, width, scale, center_y, center_x)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut out one input."""
        return square_crop(inpt, **params)


class Letterbox(v2.Transform):
    """Scale an image until it just fits, keep the aspect, pad bottom and right with 0.

    Half-pixel bilinear, antialiased when shrinking (masks: nearest). The sides are rounded to
    the nearest pixel, so the two axes' scales may differ a little; ``Geometry`` knows.

    Args:
        size: side of the square, or (height, width), in pixels.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.height, self.width = (size, size) if isinstance(size, int) else size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The scaled size and the padding."""
        height, width = v2.query_size(flat_inputs)
        scale = min(self.height / height, self.width / width)
        scaled = [max(1, round(height * scale)), max(1, round(width * scale))]
        changes = scaled != [height, width]
        right, bottom = self.width - scaled[1], self.height - scaled[0]
        return {"scaled": scaled if changes else None, "padding": [0, 0, right, bottom]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Scale and pad one input."""
        if params["scaled"] is not None:
            inpt = self._call_kernel(F.resize, inpt, params["scaled"], antialias=True)
        if any(params["padding"]):
            inpt = self._call_kernel(F.pad, inpt, padding=params["padding"], fill=0)
        return inpt


class AtOnce(v2.Compose):
    """A flip (or none), colour, a square crop and a letterbox, on one pass over the pixels.

    The same as one after the other, to the bit and with the same draws: the flip happens where the
    channels are taken apart, only what the crop keeps is recolored to its end, and it is scaled
    with a pixel's channels side by side. Whatever else than one uint8 image, boxes and a geometry
    is in a sample, the steps do themselves.
    """

    def forward(self, *inputs: Any) -> Any:
        """Transform a sample."""
        alone = len(inputs) == 1 and isinstance(inputs[0], dict)
        sample: dict[str, Any] = inputs[0] if alone else {}
        image = sample.get("image")
        if not isinstance(image, tv_tensors.Image) or image.dtype != torch.uint8:
            return super().forward(*inputs)
        moved = {name: value for name, value in sample.items() if name != "image"}
        plain = all(isinstance(v, (tv_tensors.BoundingBoxes, Geometry)) for v in moved.values())
        if not plain or image.ndim != 3 or len(image) != 3:
            return super().forward(*inputs)
        *flips, color, crop, letterbox = self.transforms
        flips = [flip for flip in flips if bool(torch.rand(1) < flip.p)]
        amounts, window = color.make_params([]), crop.make_params([image])
        fit = {"scaled": [letterbox.size] * 2, "padding": [0]}
        for name, value in moved.items():
            for flip in flips:
                value = flip.transform(value, {})
            moved[name] = letterbox.transform(crop.transform(value, window), fit)
        pixels = image.as_subclass(Tensor).numpy()
        pixels = pixels[:, :, ::-1] if flips else pixels
        top, left, side, (y0, x0, y1, x1) = window.values()
        packed = torch.zeros(side, side, dtype=torch.int32)
        if y1 > y0 and x1 > x0:
            out = packed[y0 - top : y1 - top, x0 - left : x1 - left]
            distort_color_packed(pixels, (y0, x0, y1, x1), out, **amounts)
        scaled = tv_tensors.Image(_resize_packed(packed, letterbox.size))
        return {name: scaled if name == "image" else moved[name] for name in sample}


def _resize_packed(packed: Tensor, size: int) -> Tensor:
    """(3, size, size) uint8 of (side, side) int32, red in the lowest eight bits."""
    if len(packed) != size:
        channels = packed.view(torch.uint8).unflatten(1, (-1, 4)).permute(2, 0, 1)
        channels = F.resize(channels, [size, size], antialias=True)
        packed = channels.permute(1, 2, 0).contiguous().view(torch.int32).squeeze(2)
    out = np.empty((3, size, size), dtype=np.uint8)
    for index, plane in enumerate(out):
        np.copyto(plane, packed.numpy() >> (8 * index), casting="unsafe")
    return torch.from_numpy(out)


def crop_border(max_border: int, size: int) -> int:
    """Least distance of the crop's centre from the edges of a side of ``size`` pixels.

    ``max_border``, halved until it fits twice into the side.
    """
    power = max(0, math.ceil(math.log2(2 * max_border / size)))
    return min(max_border // min(2**power, max_border), size // 2)


def square_crop_window(
    height: int, width: int, scale: float, center_y: int, center_x: int
) -> dict[str, Any]:
    """The crop for given draws.

    Returns:
        ``top``, ``left``: the window's corner, may be negative; ``side``: of the window;
        ``content``: (top, left, bottom, right) of the image pixels that are kept.
    """
    # In float32 as the original: 1.3 * 10 is 13 there and 12.99 otherwise.
    side = max(1, int(np.float32(scale) * np.float32(max(height, width))))
    half = side // 2
    top, left = center_y - half, center_x - half
    content = (
        max(top, 0),
        max(left, 0),
        min(center_y + half, height - 1),
        min(center_x + half, width - 1),
    )
    return {"top": top, "left": left, "side": side, "content": content}


def square_crop(
    inpt: Any, *, top: int, left: int, side: int, content: tuple[int, int, int, int]
) -> Any:
    """Cut the window out of an image, mask, boxes or geometry."""
    if isinstance(inpt, (tv_tensors.BoundingBoxes, Geometry)):
        return F.crop(inpt, top, left, side, side)
    if not (_is_image(inpt) or isinstance(inpt, tv_tensors.Mask)):
        return inpt
    y0, x0, y1, x1 = content
    pixels = inpt.as_subclass(Tensor)
    out = pixels.new_zeros(*pixels.shape[:-2], side, side)
    if y1 > y0 and x1 > x0:
        out[..., y0 - top : y1 - top, x0 - left : x1 - left] = pixels[..., y0:y1, x0:x1]
    return _like(out, inpt)


def _is_image(inpt: Any) -> bool:
    return isinstance(inpt, tv_tensors.Image) or F.is_pure_tensor(inpt)


def _like(pixels: Tensor, inpt: Tensor) -> Tensor:
    if isinstance(inpt, tv_tensors.TVTensor):
        wrapped: Tensor = tv_tensors.wrap(pixels, like=inpt)
        return wrapped
    return pixels


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _integer(low: int, high: int) -> int:
    """Even draw from low..high, both included."""
    return int(torch.randint(low, high + 1, ()).item())

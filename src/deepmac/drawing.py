"""Pictures of instances: masks, boxes and labels on an image, and grids of such images."""

import colorsys
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from deepmac.files import atomic_binary

Color = tuple[int, int, int]

_MASK_OPACITY = 0.45
_DASH = 6  # line widths drawn, then as many left out
_TEXT_DARK, _TEXT_LIGHT = (20, 20, 20), (255, 255, 255)


def draw_instances(
    image: NDArray[np.uint8],
    *,
    boxes: ArrayLike,
    masks: Sequence[NDArray[Any] | None] | NDArray[Any] | None = None,
    labels: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
    dashed: Sequence[bool] | None = None,
    font_size: int | None = None,
) -> NDArray[np.uint8]:
    """Draw instances on a copy of an image.

    Masks are tinted areas with a solid outline; larger objects are drawn first, so small ones stay
    visible.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) xyxy in pixels of the image.
        masks: N arrays (H, W), true or above one half on the object; None, or None for one of
            them, draws the box alone.
        labels: N short texts; "" for none.
        colors: N RGB colours; distinct ones by position when not given.
        dashed: True draws that box dashed (used for classes without masks in training).
        font_size: in pixels; by image size when not given.

    Returns:
        (H, W, 3) uint8.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    number = len(corners)
    texts = [""] * number if labels is None else list(labels)
    palette = class_colors(number) if colors is None else list(colors)
    broken = [False] * number if dashed is None else list(dashed)
    shapes: Any = [None] * number if masks is None else masks
    for name, values in (
        ("labels", texts),
        ("colors", palette),
        ("dashed", broken),
        ("masks", shapes),
    ):
        if len(values) != number:
            raise ValueError(f"{len(values)} {name} for {number} boxes")

    sizes = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    order = [int(i) for i in np.argsort(-sizes, kind="stable")]
    canvas = np.array(image, dtype=np.uint8)
    for i in order:
        mask = shapes[i]
        if mask is not None:
            _tint(canvas, _as_bool(mask, canvas.shape[:2]), palette[i])
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(canvas.shape[:2]) / 320))
    for i in order:
        _rectangle(pen, corners[i], palette[i], line, dashed=broken[i])
    font = _font(font_size or max(10, round(min(canvas.shape[:2]) / 36)))
    for i in order:
        if texts[i]:
            _label(pen, corners[i], texts[i], palette[i], font, picture.size)
    return np.array(picture)


def image_grid(
    images: Sequence[NDArray[np.uint8] | Image.Image],
    columns: int,
    titles: Sequence[str] | None = None,
    *,
    cell: tuple[int, int] | None = None,
) -> Image.Image:
    """Images side by side on white, each scaled to fit its cell and titled above.

    Args:
        images: RGB arrays (H, W, 3) uint8 or PIL images, of any sizes.
        columns: images a row.
        titles: one line each, cut to the width of the cell.
        cell: (width, height) of a cell; the largest width and height of the images when not given.
    """
    if not images or columns < 1:
        raise ValueError("a grid needs at least one image and one column")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images")
    pictures = [item if isinstance(item, Image.Image) else Image.fromarray(item) for item in images]
    width, height = cell or (max(p.width for p in pictures), max(p.height for p in pictures))
    font_size = max(11, round(width / 28))
    font, gap = _font(font_size), max(4, width // 60)
    title_height = round(1.5 * font_size) if titles is not None else 0
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    total = (
        columns * width + (columns + 1) * gap,
        rows * (height + title_height) + (rows + 1) * gap,
    )
    grid = Image.new("RGB", total, "white")
    pen = ImageDraw.Draw(grid)
    for position, picture in enumerate(pictures):
        left = gap + (position % columns) * (width + gap)
        top = gap + (position // columns) * (height + title_height + gap)
        if titles is not None:
            pen.text((left, top), _fit(titles[position], width, font), fill=_TEXT_DARK, font=font)
        scale = min(width / picture.width, height / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        fitted = picture if size == picture.size else picture.resize(size, _resampling(scale))
        offset = (left + (width - size[0]) // 2, top + title_height + (height - size[1]) // 2)
        grid.paste(fitted, offset)
    return grid


def save_png(image: NDArray[np.uint8] | Image.Image, path: str | Path) -> Path:
    """Write a picture, making its folder, whole or not at all; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with atomic_binary(path) as file:
        picture.save(file, format="PNG")
    return path


def class_colors(number: int) -> list[Color]:
    """Distinct bright colours, the same for a class index in every picture."""
    return [class_color(index) for index in range(number)]


@cache
def class_color(index: int) -> Color:
    """Colour of a class index: golden-ratio steps in hue, cycling through three tones."""
    hue = (0.58 + index * 0.618033988749895) % 1.0
    saturation, value = ((0.85, 1.0), (0.6, 1.0), (0.95, 0.8))[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _as_bool(mask: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.shape != tuple(size):
        raise ValueError(f"a mask of {mask.shape} for an image of {tuple(size)}")
    return np.ascontiguousarray(mask > 0.5)


def _tint(canvas: NDArray[np.uint8], mask: NDArray[np.bool_], color: Color) -> None:
    """Blend the colour into the mask and draw the mask's border solid, in place."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    area, inside = canvas[window], mask[window]
    blended = area[inside] * (1 - _MASK_OPACITY) + np.array(color) * _MASK_OPACITY
    area[inside] = blended.astype(np.uint8)
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    area[inside & ~core] = color


def _rectangle(
    pen: ImageDraw.ImageDraw, box: NDArray[np.float64], color: Color, line: int, *, dashed: bool
) -> None:
    """The border of a box, inside it: the outermost pixels that the box touches."""
    left, top = (int(np.floor(value)) for value in box[:2])
    right = max(left, int(np.ceil(box[2])) - 1)
    bottom = max(top, int(np.ceil(box[3])) - 1)
    if not dashed:
        pen.rectangle((left, top, right, bottom), outline=color, width=line)
        return
    step, thick = _DASH * line, line - 1
    for x in range(left, right + 1, 2 * step):
        end = min(x + step - 1, right)
        pen.rectangle((x, top, end, min(top + thick, bottom)), fill=color)
        pen.rectangle((x, max(bottom - thick, top), end, bottom), fill=color)
    for y in range(top, bottom + 1, 2 * step):
        end = min(y + step - 1, bottom)
        pen.rectangle((left, y, min(left + thick, right), end), fill=color)
        pen.rectangle((max(right - thick, left), y, right, end), fill=color)


def _label(
    pen: ImageDraw.ImageDraw,
    box: NDArray[np.float64],
    text: str,
    color: Color,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A filled tag above the box, or inside its top where there is no room."""
    _, ascent, right, descent = pen.textbbox((0, 0), text, font=font)
    width, height = round(right) + 4, round(descent - ascent) + 4
    x = int(min(max(box[0], 0), max(0, size[0] - width)))
    y = int(box[1]) - height if box[1] >= height else int(max(box[1], 0))
    y = min(y, max(0, size[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    fill = _TEXT_DARK if brightness > 140 else _TEXT_LIGHT
    pen.text((x + 2, y + 2 - ascent), text, fill=fill, font=font)


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _resampling(scale: float) -> Image.Resampling:
    """Enlarged pictures keep their pixels visible; reduced ones are averaged."""
    return Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

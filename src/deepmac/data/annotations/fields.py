"""Single fields of COCO's entries: what they hold, or why that is nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard
from urllib.parse import urlparse

from deepmac.data.annotations.identities import is_number
from deepmac.data.annotations.records import Box, ImageRecord

_CLIP_NOTE_PIXELS = 1.0  # COCO's own boxes leave the image by less, from rounding

Report = Callable[..., None]
"""report(kind, sentence, is_note=False): a fault of the annotation at hand."""


def file_name_of(fields: Mapping[str, Any]) -> str | None:
    """The entry's own, or the end of its address as LVIS gives it (``train2017/000.jpg``)."""
    name = fields.get("file_name")
    if isinstance(name, str) and name:
        return name
    address = fields.get("coco_url")
    if name is None and isinstance(address, str):
        try:
            parts = [part for part in urlparse(address).path.split("/") if part]
        except ValueError:
            return None
        return "/".join(parts[-2:]) or None
    return None


def is_side(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number of pixels along one side."""
    return is_number(value) and 1 <= value < 1 << 31


def category_ids(raw: Any, known: Iterable[int]) -> tuple[int, ...]:
    """The known ones of a list of ids."""
    if not isinstance(raw, list):
        return ()
    return tuple(sorted({int(v) for v in raw if is_number(v)} & set(known)))


def corners(raw: Any) -> tuple[float, ...] | None:
    """Eight finite numbers: x, y of four corners."""
    if not isinstance(raw, list | tuple) or len(raw) != 8:
        return None
    if not all(type(v) in (int, float) and abs(v) < 1e9 for v in raw):
        return None
    return tuple(map(float, raw))


def read_box(raw: Any, image: ImageRecord, report: Report) -> Box | None:
    """COCO's (x, y, width, height) as xyxy inside the image; None for an unusable box."""
    try:
        x, y, width, height = raw
        finite = math.isfinite(float(x) + float(y) + float(width) + float(height))
        numbers = all(isinstance(value, int | float) for value in raw)
    except (TypeError, ValueError, OverflowError):
        numbers = finite = False
    if not numbers:
        text = f"has the bbox {raw!r:.80}; it is four numbers x, y, width, height."
        report("malformed box", text)
        return None
    shown = f"{raw!r:.80}"
    if not finite:
        report("malformed box", f"has the bbox {shown}; correct the NaN or infinite number.")
        return None
    if width <= 0 or height <= 0:
        kind = "zero-area box" if min(width, height) == 0 else "negative box"
        report(kind, f"has the bbox {shown} of no area; correct or remove the annotation.")
        return None
    x2, y2 = x + width, y + height
    left, top, right, bottom = max(x, 0), max(y, 0), min(x2, image.width), min(y2, image.height)
    size = f"the image of {image.width} x {image.height}"
    if right <= left or bottom <= top:
        report("box outside image", f"has the bbox {shown} outside {size}; correct or remove it.")
        return None
    if max(left - x, top - y, x2 - right, y2 - bottom) > _CLIP_NOTE_PIXELS:
        text = f"has the bbox {shown} partly outside {size}; clipped."
        report("box clipped", text, is_note=True)
    return float(left), float(top), float(right), float(bottom)

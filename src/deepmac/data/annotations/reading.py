"""How annotations are to be read: the choices that a user has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnError = Literal["stop", "drop"]
CheckImages = Literal["none", "header", "full"]
RectangleMasks = Literal["box", "mask"]
Crowds = Literal["regions", "objects"]
MismatchedMasks = Literal["keep", "drop"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files leave open.

    Attributes:
        exact_masks: Rasterise every polygon to find masks without a pixel.
        rectangle_masks: What a mask is that is exactly its box: "box", a box without a mask (many
            exporters write such outlines for boxes); "mask", a mask as any other.
        crowds: What ``iscrowd`` 1 means: "regions" of many objects, as in COCO; or "objects", for
            files that write it with every run-length mask.
        mismatched_masks: "keep" or "drop" masks whose own box is another than their ``bbox``.
        exhaustive: Whether all objects of the images are annotated; None: as the file says of each.
    """

    exact_masks: bool = False
    rectangle_masks: RectangleMasks = "box"
    crowds: Crowds = "regions"
    mismatched_masks: MismatchedMasks = "keep"
    exhaustive: bool | None = None

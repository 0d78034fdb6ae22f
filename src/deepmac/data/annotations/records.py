"""What an annotation file holds, as plain frozen records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac.data.annotations.segmentation import RawSegmentation, Rle, segmentation_rle

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]
MaskSource = Literal["human", "model"]


@dataclass(frozen=True, slots=True)
class Category:
    """One class, with the data set's own id."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object or crowd region.

    Attributes:
        id: Annotation id.
        category_id: The data set's own class id.
        box: xyxy in pixels of the original image, inside the image, of positive area.
        segmentation: COCO polygons or RLE as in the file; None for a box without a mask.
        iscrowd: A region of many objects, never an object.
        area: Square pixels, as in the file (of the mask), else of the box.
        points: x, y in pixels of the original image, and 1 where that is the object, 0 where not.
        mask_source: Whose work the mask is, if there is one: "model" where ``deepmac label`` made
            it (such a mask is never truth), else "human".
        mask_score: The score that came with a model's mask, or None.
        corners: x, y of the four corners of a turned box, in order, or None.
    """

    id: int
    category_id: int
    box: Box
    segmentation: RawSegmentation | None
    iscrowd: bool
    area: float
    points: tuple[Point, ...] = ()
    mask_source: MaskSource = "human"
    mask_score: float | None = None
    corners: tuple[float, ...] | None = None

    @property
    def has_true_mask(self) -> bool:
        """Whether a person drew its mask: a model's is never truth."""
        return self.segmentation is not None and self.mask_source == "human"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and what is annotated on it, by annotation id.

    Attributes:
        id: Image id.
        file_name: As in the annotation file.
        path: Of the picture.
        width: Pixels.
        height: Pixels.
        instances: By annotation id.
        exhaustive: Whether every object of every class is annotated. Where not, an unmarked place
            may hold any class but those of ``neg_category_ids`` and those annotated here.
        neg_category_ids: Classes that are known to be absent.
        not_exhaustive_category_ids: Annotated classes of which some objects may be missing.
        data: Gives the picture's file where that lies in a chunk, and not at ``path``.
        number: Place in the set that was sharded, where that is not the place in this one: what
            augmentations are drawn by.
    """

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    instances: tuple[Instance, ...]
    exhaustive: bool = True
    neg_category_ids: tuple[int, ...] = ()
    not_exhaustive_category_ids: tuple[int, ...] = ()
    data: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)
    number: int | None = field(default=None, repr=False, compare=False)


def instance_rle(instance: Instance, height: int, width: int) -> Rle:
    """The mask as pycocotools RLE (bytes counts), in pixels of the original image.

    Raises:
        ValueError: the instance has no mask.
    """
    if instance.segmentation is None:
        raise ValueError(f"annotation {instance.id} is a box without a mask")
    return segmentation_rle(instance.segmentation, height, width)


def decode_mask(instance: Instance, height: int, width: int) -> NDArray[np.uint8]:
    """The mask as (height, width) uint8 of 0 and 1, column-major as pycocotools makes it."""
    mask: NDArray[np.uint8] = coco_mask.decode(instance_rle(instance, height, width))
    return mask

"""What a COCO annotation file holds, as plain frozen records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepmac.data.annotations.problems import Problem, describe_kinds
from deepmac.data.annotations.segmentation import RawSegmentation, Rle, segmentation_rle
from deepmac.errors import ConfigError

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]


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
    """

    id: int
    category_id: int
    box: Box
    segmentation: RawSegmentation | None
    iscrowd: bool
    area: float
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image and what is annotated on it, by annotation id."""

    id: int
    file_name: str
    path: Path
    width: int
    height: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class CocoIndex:
    """A checked annotation file.

    Attributes:
        json_path: The annotation file.
        image_dir: Folder that the file names start from.
        categories: By id.
        images: By id; images without objects are kept.
        problems: Everything found, errors (only if read with ``on_error="drop"``) and notes.
        dropped: How many ``images``, ``annotations`` and ``masks`` were left out.
        label_of: Category id -> class index 0..C-1, by id.
    """

    json_path: Path
    image_dir: Path
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    problems: tuple[Problem, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    label_of: dict[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        labels = {category.id: label for label, category in enumerate(self.categories)}
        object.__setattr__(self, "label_of", labels)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Category ids by class index."""
        return tuple(category.id for category in self.categories)

    def dropped_summary(self) -> list[str]:
        """Sentences to show the user: what was left out and what was mended; [] if nothing."""
        errors = [problem for problem in self.problems if not problem.is_note]
        notes = [problem for problem in self.problems if problem.is_note]
        lines = []
        if errors:
            counts = ", ".join(f"{number} {what}" for what, number in self.dropped.items())
            lines.append(f"{self.json_path}: left out {counts} ({describe_kinds(errors)}).")
        if notes:
            lines.append(f"{self.json_path}: mended {describe_kinds(notes)}.")
        return lines

    def restricted_to(self, image_ids: Iterable[int]) -> "CocoIndex":
        """The same set with these images only.

        Raises:
            ConfigError: an id is not in the set.
        """
        wanted = set(image_ids)
        missing = sorted(wanted - {image.id for image in self.images})
        if missing:
            listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise ConfigError(
                f"{len(missing)} of the {len(wanted)} chosen image ids are not in "
                f"{self.json_path} ({listed}); choose ids from that file."
            )
        return replace(self, images=tuple(image for image in self.images if image.id in wanted))


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

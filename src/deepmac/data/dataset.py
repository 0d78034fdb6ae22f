"""COCO-format instances as tensors: read, augment, cut out mask targets, ready to be collated."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from deepmac.data.annotations.coco import CocoIndex, ImageRecord, Instance
from deepmac.data.annotations.points import most_points, point_fields
from deepmac.data.batch import Sample
from deepmac.data.collate import most_useful
from deepmac.data.copy_paste import CopyPaste
from deepmac.data.exhaustive import open_classes
from deepmac.data.images import read_picture
from deepmac.data.mask_targets import TargetSpec, crop_targets, ignore_map
from deepmac.data.transforms.compose import evaluation_transform, training_transform
from deepmac.data.transforms.geometry import Geometry
from deepmac.data.transforms.jitter import JitterMode, jitter_boxes
from deepmac.errors import ConfigError, DataError
from deepmac.nn.roi_crop import grow_boxes

ModelMasks = Literal["weigh", "ignore"]
Key = int | tuple[int, int] | tuple[int, int, int] | tuple[int, int, int, int]


class CocoInstances(Dataset[Sample]):
    """One sample per image.

    A sample depends on ``(seed, epoch, image)`` only (and on its batch, where that chooses one of
    several transforms): torch's global CPU generator is seeded from
    these while the transform runs and put back afterwards, so neither the number of workers nor the
    order of reading matters. A transform must draw from torch alone, as all of torchvision's v2 do.

    Crowd regions are never objects; their cells are marked in ``ignore``. In training, objects that
    the crop leaves less than ``min_box_size`` pixels wide or high are no longer in the picture and
    are left out; otherwise every object stays, in the order of the index.

    Args:
        index: the annotations.
        label_of: category id -> class index.
        masked_category_ids: classes whose masks supervise; an object of these that has a
            segmentation is ``mask_valid``. No other mask is ever decoded.
        model_masks: masks that a model made (``mask_source: model``): ``weigh`` trains on them, of
            whatever class, weighted by their ``mask_score``; ``ignore`` takes the boxes alone.
        transform: of a dict with ``image``, ``boxes`` (tv_tensors) and ``geometry``. Of several,
            one is drawn for each batch, evenly, from the key's third number.
        targets: what the network wants to learn from.
        seed: of the augmentations.
        training: see above.
        max_roi_jitter_ratio: mask boxes' edges move by up to this share of the box, below 0.5;
            features and targets are cut by the same moved box (the reference moves the target's
            box alone). 0 = off; never outside training.
        roi_jitter_mode: see :func:`deepmac.data.transforms.jitter.jitter_boxes`.
        roi_jitter_share: of the boxes that are moved.
        copy_paste: share of the training samples onto which objects of another image are pasted.
        max_objects: of a training sample, drawn anew each time; None = all there are.
        min_visible: objects of which the crop leaves less than this share of the box are left out
            of training.
        min_box_size: in input pixels.
    """

    def __init__(
        self,
        index: CocoIndex,
        *,
        label_of: Mapping[int, int],
        masked_category_ids: frozenset[int],
        model_masks: ModelMasks = "weigh",
        transform: v2.Transform | Sequence[v2.Transform],
        targets: TargetSpec = TargetSpec(),  # noqa: B008 - frozen
        seed: int = 0,
        training: bool,
        max_roi_jitter_ratio: float = 0.0,
        roi_jitter_mode: JitterMode = "default",
        roi_jitter_share: float = 1.0,
        copy_paste: float = 0.0,
        max_objects: int | None = None,
        min_visible: float = 0.0,
        min_box_size: float = 1.0,
    ) -> None:
        if not 0 <= max_roi_jitter_ratio < 0.5:
            raise ConfigError(
                f"max_roi_jitter_ratio={max_roi_jitter_ratio} is outside 0 <= ratio < 0.5, beyond "
                "which a box could turn inside out; choose a smaller one."
            )
        if max_roi_jitter_ratio and targets.full_resolution:
            raise ConfigError(
                f"max_roi_jitter_ratio={max_roi_jitter_ratio} moves boxes that masks are cut by, "
                "but masks of full resolution are not cut; set it to 0."
            )
        self.index = index
        self.label_of = dict(label_of)
        self.masked_category_ids = masked_category_ids
        self.model_masks: ModelMasks = model_masks
        self.transforms = list(transform) if isinstance(transform, Sequence) else [transform]
        self.targets = targets
        self.seed = seed
        self.training = training
        self.max_roi_jitter_ratio = max_roi_jitter_ratio if training else 0.0
        self.roi_jitter_mode: JitterMode = roi_jitter_mode
        self.roi_jitter_share = roi_jitter_share
        self.copy_paste: CopyPaste | None = None
        if copy_paste and training:
            self.copy_paste = CopyPaste(index, masked_category_ids, copy_paste)
        self.max_objects = max_objects
        self.min_visible = min_visible
        self.min_box_size = min_box_size
        self.points_per_object = most_points(index)
        self.exhaustive = index.summary.exhaustive

    @staticmethod
    def training_transform(size: int, **settings: Any) -> v2.Transform:
        """The augmentations and the padded square of ``size`` pixels."""
        return training_transform(size, **settings)

    @staticmethod
    def evaluation_transform(size: int) -> v2.Transform:
        """The padded square alone."""
        return evaluation_transform(size)

    @staticmethod
    def choice(sample: Sample, slots: int) -> Tensor:
        """Which objects stay where there are too many."""
        return most_useful(sample, slots)

    def __len__(self) -> int:
        return len(self.index.images)

    def __getitem__(self, key: Key) -> Sample:
        """The sample of an image, of ``(epoch, image)``, or of ``(epoch, image, batch, again)``.

        ``again`` counts the times that the image came before in the epoch.

        Raises:
            DataError: the image cannot be read; one sentence, also out of a worker process.
        """
        key = key if isinstance(key, tuple) else (0, key)
        epoch, position, batch, again = (*key, 0, 0)[:4]
        record = self.index.images[position]
        drawn_by = position if record.number is None else record.number
        with _seeded(self.seed, epoch, drawn_by, *([again] if again else [])):
            record, pixels = self._read(record)
            objects, crowds = self._objects(record)
            sample = self._transform(epoch, batch)(self._framed(pixels, objects))
            geometry, boxes = sample["geometry"], sample["boxes"].as_subclass(Tensor)
            if self.training:
                objects, boxes = self._visible(objects, boxes, geometry)
            mask_boxes = boxes
            if self.max_roi_jitter_ratio:
                mask_boxes = jitter_boxes(
                    boxes,
                    self.max_roi_jitter_ratio,
                    self.roi_jitter_mode,
                    geometry.canvas_size,
                    share=self.roi_jitter_share,
                )
        return self._fields(record, objects, crowds, sample, boxes, mask_boxes)

    def _objects(self, record: ImageRecord) -> tuple[list[Instance], list[Instance]]:
        """What is learned and found, and the crowd regions."""
        crowds = [item for item in record.instances if item.iscrowd]
        return [item for item in record.instances if not item.iscrowd], crowds

    def _read(self, record: ImageRecord) -> tuple[ImageRecord, NDArray[np.uint8]]:
        """The picture, and what is on it once others' objects are pasted onto it."""
        try:
            pixels = read_picture(record)
            if self.copy_paste is None:
                return record, pixels
            items, pixels = self.copy_paste(record, list(record.instances), pixels)
        except DataError as error:
            raise SampleError(str(error)) from None
        return replace(record, instances=tuple(items)), pixels

    def _framed(self, pixels: NDArray[np.uint8], objects: list[Instance]) -> dict[str, Any]:
        boxes = torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4)
        size = pixels.shape[:2]
        return {
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "geometry": Geometry.identity(*size),
        }

    def _transform(self, epoch: int, batch: int) -> v2.Transform:
        if len(self.transforms) == 1:
            return self.transforms[0]
        drawn = np.random.default_rng((self.seed, epoch, batch)).integers(len(self.transforms))
        return self.transforms[drawn]

    def _visible(
        self, objects: list[Instance], boxes: Tensor, geometry: Geometry
    ) -> tuple[list[Instance], Tensor]:
        keep = self._large_enough(boxes[:, 2:] - boxes[:, :2]).all(dim=1)
        if self.min_visible > 0:
            left = geometry.to_original(boxes)
            whole = torch.tensor([item.box for item in objects], dtype=torch.float64).reshape(-1, 4)
            keep &= _areas(left) >= self.min_visible * _areas(whole)
        index = keep.nonzero().squeeze(1)
        if self.max_objects is not None and len(index) > self.max_objects:
            index = index[torch.randperm(len(index))[: self.max_objects]].sort().values
        return [objects[i] for i in index.tolist()], boxes[index]

    def _large_enough(self, sides: Tensor) -> Tensor:
        return sides >= self.min_box_size

    def _fields(
        self,
        record: ImageRecord,
        objects: list[Instance],
        crowds: list[Instance],
        transformed: dict[str, Any],
        boxes: Tensor,
        mask_boxes: Tensor,
    ) -> Sample:
        size = (record.height, record.width)
        geometry = transformed["geometry"]
        ignore = ignore_map(crowds, geometry, size, self.targets.stride)
        mask_weights = torch.tensor([self._trust(item) for item in objects], dtype=torch.float32)
        mask_valid = mask_weights > 0
        sample: Sample = {
            "images": transformed["image"].as_subclass(Tensor),
            "true_sizes": torch.tensor(geometry.true_size),
            "boxes": boxes,
            "labels": _integers([self.label_of[item.category_id] for item in objects]),
            "valid": torch.ones(len(objects), dtype=torch.bool),
            "mask_valid": mask_valid,
            "mask_weights": mask_weights,
            "mask_boxes": mask_boxes,
            "mask_targets": self._targets(objects, mask_valid, mask_boxes, transformed, size),
            "ignore": ignore,
            "image_ids": torch.tensor(record.id),
            "annotation_ids": _integers([item.id for item in objects]),
            "geometry": geometry.affine,
            "original_sizes": torch.tensor(size),
        }
        if not self.exhaustive:
            sample["open_classes"] = open_classes(record, self.label_of)
        sample.update(point_fields(objects, geometry, self.points_per_object))  # type: ignore[typeddict-item]
        return sample

    def _trust(self, item: Instance) -> float:
        """Weight of an object's mask loss: 1 for a person's mask, a model's score for its own."""
        if item.segmentation is None:
            return 0.0
        if item.mask_source == "model":
            weigh = self.model_masks == "weigh" and self.training
            return (item.mask_score or 0.0) if weigh else 0.0
        return float(item.category_id in self.masked_category_ids)

    def _targets(
        self,
        objects: list[Instance],
        mask_valid: Tensor,
        mask_boxes: Tensor,
        transformed: dict[str, Any],
        original_size: tuple[int, int],
    ) -> Tensor:
        """(n, rows, columns) in 0..1; zeros for objects that are not ``mask_valid``."""
        geometry: Geometry = transformed["geometry"]
        spec = self.targets
        if spec.full_resolution:
            height, width = geometry.canvas_size
            grid = math.ceil(height / spec.stride), math.ceil(width / spec.stride)
            edges = [0.0, 0.0, float(grid[1] * spec.stride), float(grid[0] * spec.stride)]
            frames = torch.tensor(edges).expand(len(objects), 4)
        else:
            grid = spec.mask_size, spec.mask_size
            frames = grow_boxes(mask_boxes, 1 + 2 * spec.box_margin)
        targets = torch.zeros(len(objects), *grid)
        masked = [item for item, is_masked in zip(objects, mask_valid, strict=True) if is_masked]
        if masked:
            targets[mask_valid] = crop_targets(
                masked, frames[mask_valid], geometry, original_size, grid
            )
        return targets


class SampleError(DataError):
    """A DataError that leaves a loader's worker process as the sentence it is.

    The loader raises a worker's exception again as ``type(text)``, with the worker's traceback in
    the text; the sentence is what follows this class's name on the traceback's last line.
    """

    def __init__(self, message: str) -> None:
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.rpartition(name)[2].strip())


@contextmanager
def _seeded(*numbers: int) -> Iterator[None]:
    """Torch's CPU generator in a state that depends on these numbers only."""
    words = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would seed (or queue seeding) every accelerator, too.
        torch.default_generator.manual_seed(int(words[0] >> np.uint64(1)))
        yield


def _areas(boxes: Tensor) -> Tensor:
    """Of (N, 4) boxes whose opposite edges may be swapped."""
    return (boxes[:, 2:] - boxes[:, :2]).abs().prod(dim=1)


def _integers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)

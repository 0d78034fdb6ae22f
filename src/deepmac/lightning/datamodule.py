"""COCO-format data for training, evaluation and prediction."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from deepmac.class_map import ClassMap
from deepmac.data.annotations.coco import Category, CheckImages, CocoIndex, OnError
from deepmac.data.annotations.layout import Format
from deepmac.data.annotations.reading import Crowds, MismatchedMasks, RectangleMasks
from deepmac.data.batch import Batch
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances, ModelMasks
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.original.dataset import data_set_of
from deepmac.data.rare_classes import repeat_factors
from deepmac.data.sampler import EpochBatchSampler
from deepmac.data.settings import VAL_SHARE, Split, data_folder, read_annotations, read_classes
from deepmac.data.stream import sampler as streaming
from deepmac.data.stream.chunked import DEFAULT_CACHE_GB, StreamImages
from deepmac.data.transforms.jitter import JitterMode
from deepmac.data.transforms.windows import MIN_VISIBLE, window_transform
from deepmac.errors import ConfigError, DataError, UserError
from deepmac.lightning.arguments import check_arguments
from deepmac.lightning.console import say
from deepmac.lightning.stream_place import StreamPlace
from deepmac.lightning.xla import device as xla
from deepmac.models.weights import read_weight_file
from deepmac.nn.ranges import PositiveInt, Range, Seed, Share

XLA_MAX_BOXES = 100
_AUGMENTATIONS = ("flip", "color", "crop_scale", "scale_jitter")


_Scale = Annotated[float, Range(0, 100, open_low=True)]


class CocoDataModule(StreamPlace):
    """Images, boxes for all classes and masks for some, from annotation files of any known format.

    Args:
        source: ``coco`` reads ``root``; ``shapes`` writes the generated set on first use;
            ``stream`` reads the chunks that ``deepmac shard`` has written to ``root``, a folder, an
            ``s3://`` or a ``gs://`` address.
        root: the data set as another tool has exported it: COCO json in any layout, YOLO, Pascal
            VOC, LabelMe, MegaDetector, Open Images, panoptic or TFRecords; see ``docs/data.md``.
        train_json: other place of the training annotations.
        val_json: other place of the validation annotations.
        predict_json: images to predict on (annotations optional); null = the validation json.
        image_dir: other place of the images.
        val_image_dir: other place of the validation images, where they have a folder of their own.
        format: of the annotations in ``root``; ``auto`` looks, and says what it found.
        val_share: share of the training images that is held out where there is no validation set.
        rectangle_masks: what a mask is that is exactly its box: ``box`` (a box without a mask) or
            ``mask``.
        crowds: what ``iscrowd`` 1 means: ``regions`` of many objects, or ``objects``.
        mismatched_masks: ``keep`` or ``drop`` masks that are unlike their box.
        masked_classes: whose masks supervise training: ``voc``, ``nonvoc``, ``all``,
            ``annotated`` (every class that has any), or a list of names or ids.
        model_masks: masks that a model made (``mask_source: model``): ``weigh`` trains on them, of
            whatever class, weighted by their ``mask_score``; ``ignore`` takes the boxes alone.
        image_size: side of the padded square that the network sees.
        batch_size: training images per device and step; ``auto``: the most that fit into a GPU.
        val_batch_size: images per device and evaluation step.
        num_workers: loader processes; null = one per core, at most 8.
        max_boxes: fixed number of padded instances; null = the largest count in the batch (on XLA
            100 in training, the largest count of the data set in evaluation).
        only_images: train and evaluate on these images of the training json alone.
        flip: probability of a horizontal flip.
        color: draw the original's hue, contrast, saturation and brightness changes.
        crop_scale: range of the random square crop's side relative to the longer image side;
            null = no crop.
        scale_jitter: instead of the crop, range of the factor by which the image that just fits
            is scaled before it is cropped or padded.
        max_roi_jitter_ratio: move mask-training boxes by up to this share of their size.
        roi_jitter_mode: see :func:`deepmac.data.transforms.jitter.jitter_boxes`.
        roi_jitter_share: of the mask-training boxes that are moved.
        copy_paste: share of the training images onto which objects of another image are pasted,
            such as have a mask by a person that supervises.
        repeat_threshold: classes on a smaller share of the images are rare, and images of theirs
            come more often (repeat factor sampling; LVIS takes 0.001); 0 = every image once.
        windows: instead of the crop, sides in pixels of square windows around one object each, at
            the scale it has in an input of ``image_size``; every batch draws one of the sides.
        window_scale: range of the factor on that scale.
        window_objects: objects of a window that are learned from, drawn at random; null = all.
        mask_oversampling: mask targets are this many times finer; for Deep-MARC with
            ``train_boxes=proposals``, which cuts them anew.
        exhaustive: whether every object of the training images is annotated; null = as the file
            says of each (``"exhaustive": false``, LVIS's lists, Open Images' verified labels).
            Where not, a detector learns nothing from unmarked places.
        on_error: ``stop`` at unusable data, or ``drop`` and count it.
        check_images: before the run: ``none``, ``header`` (exists, right size, not cut short)
            or ``full`` (decode every one).
        seed: of the sampling order and augmentation draws.
        stream_lanes: rows of chunks that are read side by side; a number of processes that divides
            it shares no chunk. null = up to 64, by the number of chunks.
        cache_gb: bound on the chunks that this machine keeps of object stores.
        shapes_train: images of the generated training set.
        shapes_val: images of the generated validation set.
        shapes_size: side of the generated images.
        difficulty: of the generated set, ``default``, ``hard`` or ``coats``.
    """

    def __init__(
        self,
        *,
        source: Literal["coco", "shapes", "stream"] = "coco",
        root: str | None = None,
        train_json: str | None = None,
        val_json: str | None = None,
        predict_json: str | None = None,
        image_dir: str | None = None,
        val_image_dir: str | None = None,
        format: Format = "auto",
        val_share: Share = VAL_SHARE,
        rectangle_masks: RectangleMasks = "box",
        crowds: Crowds = "regions",
        mismatched_masks: MismatchedMasks = "keep",
        masked_classes: str | list[str | int] = "annotated",
        model_masks: ModelMasks = "weigh",
        image_size: Annotated[int, Range(4, 8192)] = 512,
        batch_size: Annotated[int, Range(1, 65536)] | Literal["auto"] = 8,
        val_batch_size: Annotated[int, Range(1, 65536)] = 8,
        num_workers: Annotated[int, Range(0, 256)] | None = None,
        max_boxes: Annotated[int, Range(1, 10_000)] | None = None,
        only_images: list[int] | None = None,
        flip: Share = 0.5,
        color: bool = True,
        crop_scale: tuple[_Scale, _Scale] | None = (0.6, 1.3),
        scale_jitter: tuple[_Scale, _Scale] | None = None,
        max_roi_jitter_ratio: Share = 0.0,
        roi_jitter_mode: JitterMode = "default",
        roi_jitter_share: Share = 1.0,
        copy_paste: Share = 0.0,
        repeat_threshold: Share = 0.0,
        windows: list[PositiveInt] | None = None,
        window_scale: tuple[_Scale, _Scale] = (0.6, 1.25),
        window_objects: PositiveInt | None = None,
        mask_oversampling: Annotated[int, Range(1, 16)] = 1,
        exhaustive: bool | None = None,
        on_error: OnError = "stop",
        check_images: CheckImages = "header",
        seed: Seed = 0,
        stream_lanes: Annotated[int, Range(1, 65536)] | None = None,
        cache_gb: Annotated[float, Range(0, 1_000_000, open_low=True)] = DEFAULT_CACHE_GB,
        shapes_train: Annotated[int, Range(1, 10_000_000)] = 2000,
        shapes_val: Annotated[int, Range(1, 10_000_000)] = 200,
        shapes_size: Annotated[int, Range(16, 4096)] = 128,
        difficulty: Literal["default", "hard", "coats"] = "default",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_arguments("data", self.hparams, CocoDataModule)
        for name in ("crop_scale", "scale_jitter", "window_scale"):
            if (chosen := self.hparams[name]) and chosen[0] > chosen[1]:
                raise ConfigError(
                    f"data.{name}={list(chosen)} is a range: the smaller number first"
                )
        if source == "stream":
            streaming.check_settings(self.hparams)
        self.train_index: CocoIndex | None = None
        self.val_index: CocoIndex | None = None
        self.predict_index: CocoIndex | None = None
        self.targets = TargetSpec()
        self._class_map: ClassMap | None = None
        self._said = ""

    @property
    def class_map(self) -> ClassMap:
        """Classes of the training json (of the evaluated one where there is no training json)."""
        assert self._class_map is not None, "setup has not run"
        return self._class_map

    def prepare_data(self) -> None:
        """Once per machine: write the generated set; read and look at any other for the cache."""
        if self.hparams["source"] == "shapes":
            data_folder(self.hparams)
        elif self.trainer is not None and self.trainer.world_size > 1:
            fits = self.trainer.state.fn == "fit"
            for split in ("train", "val") if fits else ():
                with suppress(UserError):  # said in setup, by every process alike
                    read_annotations(self.hparams, split)

    def setup(self, stage: str) -> None:
        """Read and check the annotation files that the stage needs."""
        module = None if self.trainer is None else self.trainer.lightning_module
        self.targets = getattr(module, "targets", self.targets)
        if stage == "fit":
            self.train_index = self.train_index or self._read("train")
        if stage in ("fit", "validate", "test"):
            by_heart = self.hparams["only_images"] is not None
            if stage != "fit" or self._validates:
                self.val_index = self.val_index or self._read("train" if by_heart else "val")
        if stage == "predict":
            self.predict_index = self._read("predict")
        if self._class_map is None:
            read = self.train_index, self.val_index, self.predict_index
            classes = read_classes(self.hparams, *read)
            self._class_map = self._slots_of_weights(classes) if stage == "fit" else classes
            self._report_max_boxes()
        self.val_index = self._aligned(self.val_index)
        self.predict_index = self._aligned(self.predict_index)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled, augmented batches; continues mid-epoch where a resumed run stopped."""
        assert self.train_index is not None
        settings = self.hparams
        dataset = self._training_set
        sampler = self._train_sampler()
        if len(sampler) == 0:
            raise DataError(
                f"{len(dataset)} training images do not fill one batch of "
                f"{settings['batch_size']} on {sampler.world_size} device(s): lower "
                "data.batch_size"
            )
        if isinstance(sampler, streaming.StreamBatchSampler):
            streaming.check_cache(sampler, 1 if self.trainer is None else self.trainer.num_nodes)
        if self.trainer is not None:
            seen = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore
            epoch, sampler.start_batch = divmod(seen, max(1, self.batches_per_epoch))
            sampler.set_epoch(epoch)
        max_boxes = self._max_boxes
        if max_boxes is None and xla.runs_on(self.trainer):
            max_boxes = XLA_MAX_BOXES  # a new shape is a new graph
        return self._loader(
            dataset,
            max_boxes=max_boxes,
            batch_sampler=sampler,
            persistent_workers=self._workers > 0,
        )

    def largest_batch(self, count: int) -> Batch:
        """The training image with the most objects, so many times: no batch takes more memory."""
        assert self.train_index is not None
        dataset = self._training_set
        position = int(np.argmax(self.train_index.table.objects_per_image()))
        tried = [dataset[(0, position, number, number)] for number in range(8)]
        most = max(tried, key=lambda one: (one["images"].numel(), len(one["boxes"])))
        return collate([most] * count, max_boxes=self._max_boxes, choice=dataset.choice)

    @property
    def _max_boxes(self) -> int | None:
        """What a training batch is padded to, where that is a fixed number."""
        fixed: int | None = self.hparams["max_boxes"]
        return fixed or self.targets.conventions.max_boxes

    @property
    def _training_set(self) -> CocoInstances:
        assert self.train_index is not None
        transform = self._training_transform()
        return self._dataset(self.train_index, training=True, transform=transform)

    def _training_transform(self) -> v2.Transform | list[v2.Transform]:
        settings = self.hparams
        size = settings["image_size"]
        chosen = {name: settings[name] for name in _AUGMENTATIONS}
        if settings["windows"]:
            return [
                window_transform(
                    side,
                    image_size=size,
                    scale=settings["window_scale"],
                    flip=settings["flip"],
                    color=settings["color"],
                )
                for side in settings["windows"]
            ]
        return self._kind.training_transform(size, **chosen)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per device and epoch, without building the loader.

        The loader must not exist before a resumed trainer has restored its position, which is
        why the schedule asks here instead of ``trainer.estimated_stepping_batches``.
        """
        count = len(self._train_sampler())
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        return min(count, limit) if isinstance(limit, int) else int(count * limit)

    def _train_sampler(self) -> EpochBatchSampler:
        assert self.train_index is not None
        rank, world_size = self._place()
        images = self.train_index.images
        if isinstance(images, StreamImages):
            return streaming.StreamBatchSampler(
                images.split,
                self.stream_order(images),
                self.hparams["batch_size"],
                rank=rank,
                world_size=world_size,
            )
        return EpochBatchSampler(
            len(images),
            self.hparams["batch_size"],
            seed=self.hparams["seed"],
            shuffle=True,
            drop_last=True,
            rank=rank,
            world_size=world_size,
            factors=self._repeat_factors,
        )

    @cached_property
    def _repeat_factors(self) -> NDArray[np.float64] | None:
        assert self.train_index is not None
        threshold = self.hparams["repeat_threshold"]
        return repeat_factors(self.train_index.table, threshold) if threshold else None

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation image once, over all replicas."""
        assert self.val_index is not None
        return self._evaluation_loader(self.val_index)

    def test_dataloader(self) -> DataLoader[Any]:
        """As validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every image of ``predict_json`` once, over all replicas."""
        assert self.predict_index is not None
        return self._evaluation_loader(self.predict_index)

    def _evaluation_loader(self, index: CocoIndex) -> DataLoader[Any]:
        transform = self._kind.evaluation_transform(self.hparams["image_size"])
        dataset = self._dataset(index, training=False, transform=transform)
        rank, world_size = self._place()
        own = range(rank, len(dataset), world_size)
        max_boxes, batch_size = self.hparams["max_boxes"], self.hparams["val_batch_size"]
        static = xla.runs_on(self.trainer)
        if static and max_boxes is None:
            max_boxes = max(1, index.summary.most_objects)
        # Plain arguments: Lightning rebuilds the loader of a prediction.
        return self._loader(
            dataset,
            max_boxes=max_boxes,
            fill_to=batch_size if static else None,
            sampler=own,
            batch_size=batch_size,
            persistent_workers=static and self._workers > 0,
        )

    def _dataset(
        self,
        index: CocoIndex,
        *,
        training: bool,
        transform: v2.Transform | list[v2.Transform],
    ) -> CocoInstances:
        settings = self.hparams
        size = self.targets.mask_size * settings["mask_oversampling"]
        return self._kind(
            index,
            label_of=self.class_map.label_of,
            masked_category_ids=self.class_map.masked_category_ids,
            model_masks=settings["model_masks"],
            transform=transform,
            targets=replace(self.targets, mask_size=size),
            seed=settings["seed"],
            training=training,
            max_roi_jitter_ratio=settings["max_roi_jitter_ratio"],
            roi_jitter_mode=settings["roi_jitter_mode"],
            roi_jitter_share=settings["roi_jitter_share"],
            copy_paste=settings["copy_paste"],
            max_objects=settings["window_objects"] if training and settings["windows"] else None,
            min_visible=MIN_VISIBLE if training and settings["windows"] else 0.0,
        )

    @property
    def _kind(self) -> type[CocoInstances]:
        return data_set_of(self.targets.conventions)

    def _slots_of_weights(self, classes: ClassMap) -> ClassMap:
        """The slots of the original's weights that training goes on from, unused ones too.

        The original's heatmaps have slots for ids that COCO gave up, and learn that they are empty.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        path = None if module is None else module.hparams.get("init_from")
        if self.targets.conventions.data == "today" or path is None:
            return classes
        stored = read_weight_file(path).class_map
        if stored is None:
            return classes
        known = set(zip(stored.category_ids, stored.names, strict=True))
        if not known.issuperset(zip(classes.category_ids, classes.names, strict=True)):
            return classes
        unused = frozenset(stored.category_ids) - frozenset(classes.category_ids)
        return ClassMap(stored.category_ids, stored.names, classes.masked_category_ids, unused)

    def _loader(
        self,
        dataset: CocoInstances,
        *,
        max_boxes: int | None,
        fill_to: int | None = None,
        **arguments: Any,
    ) -> DataLoader[Any]:
        return _PositionedLoader(
            dataset,
            num_workers=self._workers,
            collate_fn=partial(
                collate, max_boxes=max_boxes, choice=dataset.choice, batch_size=fill_to
            ),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            **arguments,
        )

    @property
    def _workers(self) -> int:
        chosen: int | None = self.hparams["num_workers"]
        return min(8, os.cpu_count() or 1) if chosen is None else chosen

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    @property
    def _validates(self) -> bool:
        return self.trainer is None or bool(self.trainer.limit_val_batches)

    def _aligned(self, index: CocoIndex | None) -> CocoIndex | None:
        """With the training set's classes, which are matched by name."""
        if index is None:
            return None
        classes = self.class_map
        names = {c.id: c.supercategory for c in index.categories}
        known = [
            Category(i, name, names.get(i, ""))
            for i, name in zip(classes.category_ids, classes.names, strict=True)
            if i not in classes.unused_category_ids
        ]
        aligned = index.aligned_with(known, "the training set")
        if len(aligned.problems) > len(index.problems):
            say(aligned.problems[-1].message)
        return aligned

    def _read(self, split: Split) -> CocoIndex:
        settings = dict(self.hparams)
        if not self._validates or settings["only_images"] is not None:
            settings["val_share"] = 0.0  # nothing is held out where nothing, or the same, is tried
        index = read_annotations(settings, split)
        if settings["source"] != "shapes" and index.source != self._said:
            say(index.source)
            self._said = index.source
        for line in index.dropped_summary():
            say(line)
        if self.hparams["only_images"] is not None and split != "predict":
            index = index.restricted_to(self.hparams["only_images"])
        return index

    def _report_max_boxes(self) -> None:
        limit, index = self.hparams["max_boxes"], self.train_index
        if limit is None and xla.runs_on(self.trainer):
            limit = XLA_MAX_BOXES
        if limit is None or index is None:
            return
        images, boxes = index.summary.beyond(limit)
        if images:
            say(
                f"data.max_boxes={limit}: {images} training images hold more objects; "
                f"{boxes} boxes are left out when uncropped"
            )


class _PositionedLoader(DataLoader[Any]):
    """Resumable, as Lightning asks, without a state: :meth:`CocoDataModule.train_dataloader` sets
    its sampler where the trainer's own counters stand."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take over."""


def _one_thread(worker_id: int) -> None:
    """Workers are parallel already; more threads in each would only compete.

    What they print goes straight out: the progress, forked with its lock, may wait for ever.
    """
    torch.set_num_threads(1)
    sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr

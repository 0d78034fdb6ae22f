"""Pictures of a few fixed validation images: the truth beside what the model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from deepmac.class_map import ClassMap
from deepmac.data.annotations.coco import ImageRecord, decode_mask
from deepmac.data.images import read_picture
from deepmac.drawing import class_color, draw_instances, image_grid, save_png
from deepmac.evaluation.results import ImageResult
from deepmac.nn.ranges import NonNegativeInt, Share

_TITLES = ("truth", "masks in the true boxes", "detections")
_LEGIBLE_SIDE = 256


class Pictures(Callback):
    """Three columns per image: truth, masks predicted for the true boxes, detections.

    Boxes of classes that had no masks in training are dashed.

    Args:
        num_images: how many validation images, spread evenly over the set; the same every time.
        min_score: detections below it are not drawn.
    """

    def __init__(self, *, num_images: NonNegativeInt = 6, min_score: Share = 0.3) -> None:
        self.num_images = num_images
        self.min_score = min_score
        self._results: dict[int, ImageResult] = {}
        self._chosen: dict[int, ImageRecord] = {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the images: those with objects, at even distances."""
        self._results = {}
        if not self._chosen:
            index = trainer.datamodule.val_index  # type: ignore[attr-defined]
            drawable = np.flatnonzero(index.table.row_count).tolist()
            step = max(1, len(drawable) // max(1, self.num_images))
            chosen = (index.images[i] for i in drawable[::step][: self.num_images])
            self._chosen = {image.id: image for image in chosen}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chosen images' results; under many processes, those that fall on the first."""
        for result in outputs["results"]:
            if result["image_id"] in self._chosen:
                self._results[result["image_id"]] = result

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, on the first replica."""
        if trainer.sanity_checking or not trainer.is_global_zero or not self._results:
            return
        class_map: ClassMap = pl_module.class_map  # type: ignore[assignment]
        cells = []
        for image_id in sorted(self._results):
            cells += draw_result(
                self._chosen[image_id], self._results[image_id], class_map, self.min_score
            )
        columns = min(6, len(cells))  # two images a row
        titles = [_TITLES[i % 3] if i < columns else "" for i in range(len(cells))]
        picture = image_grid(cells, columns, titles)
        folder = Path(trainer.default_root_dir) / "pictures"
        save_png(picture, folder / f"step_{trainer.global_step:07d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(
                    "pictures", np.asarray(picture), trainer.global_step, dataformats="HWC"
                )


def draw_result(
    image: ImageRecord, result: ImageResult, class_map: ClassMap, min_score: float
) -> list[NDArray[np.uint8]]:
    """The three pictures of one image, RGB uint8; small images are enlarged to be legible."""
    zoom = max(1, _LEGIBLE_SIDE // max(image.width, image.height))

    def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)

    pixels = enlarged(read_picture(image))
    objects = [o for o in image.instances if not o.iscrowd]
    given = result["gt_box_masks"] or {}
    true_masks = [
        None if o.segmentation is None else enlarged(decode_mask(o, image.height, image.width))
        for o in objects
    ]
    found = [i for i, score in enumerate(result["scores"]) if score >= min_score]
    masks = result["masks"] or []

    def draw(boxes: Any, shown: Any, categories: list[int], scores: list[str]) -> Any:
        slots = [class_map.label_of[c] for c in categories]
        return draw_instances(
            pixels,
            boxes=zoom * np.asarray(boxes, dtype=float).reshape(-1, 4),
            masks=shown,
            labels=[f"{class_map.names[s]}{x}" for s, x in zip(slots, scores, strict=True)],
            colors=[class_color(s) for s in slots],
            dashed=[c not in class_map.masked_category_ids for c in categories],
        )

    own = [o.category_id for o in objects]
    blank = [""] * len(objects)
    return [
        draw([o.box for o in objects], true_masks, own, blank),
        draw(
            [o.box for o in objects],
            [enlarged(coco_mask.decode(given[o.id])) if o.id in given else None for o in objects],
            own,
            blank,
        ),
        draw(
            [result["boxes"][i] for i in found],
            [enlarged(coco_mask.decode(masks[i])) for i in found],
            [result["category_ids"][i] for i in found],
            [f" {result['scores'][i]:.2f}" for i in found],
        ),
    ]

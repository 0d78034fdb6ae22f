"""Images per second of loading and augmenting, beside plain torchvision transforms.

``python -m benchmarks.data_pipeline --root DIR`` with a data set in COCO's layout. Both sides
read the same images and give uint8 squares, boxes and a 32 x 32 target for every object that has a
mask, after a flip, color changes and a random crop at a random scale. The plain side is what one
writes with torchvision alone: masks as ``tv_tensors.Mask`` through ``ColorJitter``, ``ScaleJitter``
and ``RandomCrop``, then ``roi_align`` of the masks by the boxes.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.ops import roi_align
from torchvision.transforms import v2

from benchmarks.table import Row
from deepmac.data.annotations.coco import CocoIndex, decode_mask, read_coco
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.collate import collate
from deepmac.data.dataset import CocoInstances
from deepmac.data.images import read_image
from deepmac.data.mask_targets import TargetSpec
from deepmac.data.sampler import EpochBatchSampler
from deepmac.data.transforms.compose import training_transform

MASK_SIZE = 32


class PlainInstances(Dataset[dict[str, Tensor]]):
    """The same samples made of torchvision's stock parts."""

    def __init__(self, index: CocoIndex, size: int) -> None:
        self.index = index
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(
                    brightness=0.2, contrast=(0.8, 1.25), saturation=(0.8, 1.25), hue=0.02
                ),
                v2.ScaleJitter((size, size), scale_range=(1 / 1.3, 1 / 0.6)),
                v2.RandomCrop((size, size), pad_if_needed=True),
                v2.SanitizeBoundingBoxes(labels_getter=lambda sample: sample["labels"]),
            ]
        )

    def __len__(self) -> int:
        return len(self.index.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        """Image, boxes, labels and targets of the image ``key[1]``."""
        record = self.index.images[key[1]]
        size = (record.height, record.width)
        objects = [
            item for item in record.instances if not item.iscrowd and item.segmentation is not None
        ]
        boxes = torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4)
        masks = [torch.from_numpy(decode_mask(item, *size)) for item in objects]
        pixels = read_image(record.path, size[::-1])
        sample = self.transform(
            {
                "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
                "labels": torch.tensor([item.category_id for item in objects]),
                "masks": tv_tensors.Mask(
                    torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.uint8)
                ),
            }
        )
        boxes = sample["boxes"].as_subclass(Tensor)
        masks_in_place = sample["masks"].as_subclass(Tensor)[:, None].float()
        rows = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], dim=1)
        return {
            "images": sample["image"].as_subclass(Tensor),
            "boxes": boxes,
            "labels": sample["labels"],
            "mask_targets": roi_align(masks_in_place, rows, MASK_SIZE, aligned=True)[:, 0],
        }


def images_per_second(
    dataset: Dataset[Any], collate_fn: Callable[[Any], Any], batch_size: int, workers: int
) -> float:
    """One pass over the data set; the time until the first batch counts, worker start does not."""
    count = len(dataset)  # type: ignore[arg-type]
    sampler = EpochBatchSampler(count, batch_size, seed=0, shuffle=True, drop_last=False)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    if workers:
        for _ in loader:
            pass
        sampler.set_epoch(1)
    start = time.perf_counter()
    seen = sum(len(batch["images"]) for batch in loader)
    return seen / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    how, found = measure(options)
    print(how)
    print(f"{'':12}{'deepmac':>12}{'torchvision':>14}{'ratio':>8}   images/s")
    for workers, (fast, slow) in found.items():
        name = f"{workers} workers" if workers else "in process"
        print(f"{name:12}{fast:12.1f}{slow:14.1f}{fast / slow:8.2f}")


def rows(quick: bool, root: Path) -> list[Row]:
    """For the table of ``make bench``."""
    few = ["--images", "8", "--repeats", "1", "--size", "64", "--workers", "0"] if quick else []
    how, found = measure(_parser().parse_args(["--root", str(root), *few]))
    return [
        Row("loading and augmenting, " + (f"{n} workers" if n else "in process"), "images/s", fast,
            "torchvision v2", slow, None if n else 4.0, how, larger_is_better=True)
        for n, (fast, slow) in found.items()
    ]  # fmt: skip


def measure(options: argparse.Namespace) -> tuple[str, dict[int, tuple[float, float]]]:
    """How it was measured, and images/s of both sides by number of workers."""
    json_path, image_dir = locate_coco(options.root, options.split)
    index = read_coco(json_path, image_dir, check_images="none")
    index = dataclasses.replace(index, images=index.images[: options.images])
    ours = CocoInstances(
        index,
        label_of=index.label_of,
        masked_category_ids=frozenset(index.category_ids),
        transform=training_transform(options.size),
        targets=TargetSpec(mask_size=MASK_SIZE),
        training=True,
    )
    plain = PlainInstances(index, options.size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    objects = sum(len(record.instances) for record in index.images)
    sides = median(max(record.height, record.width) for record in index.images)
    how = (
        f"{len(index.images)} images (median longer side {sides:.0f}, "
        f"{objects / len(index.images):.1f} objects each, every mask used) to {options.size} x "
        f"{options.size}, batches of {options.batch_size}; one thread a process; median of "
        f"{options.repeats} passes, the two sides in turn, files in the page cache"
    )
    found = {}
    try:
        images_per_second(ours, collate, options.batch_size, 0)
        for workers in options.workers:
            speeds = np.array(
                [
                    [
                        images_per_second(dataset, collate_fn, options.batch_size, workers)
                        for dataset, collate_fn in ((ours, collate), (plain, _stack_images))
                    ]
                    for _ in range(options.repeats)
                ]
            )
            fast, slow = np.median(speeds, axis=0)
            found[workers] = float(fast), float(slow)
    finally:
        torch.set_num_threads(threads)
    return how, found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--root", required=True, help="data set folder in COCO's layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=512, help="side of the network input")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def _stack_images(samples: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Torchvision's custom: a batch of images, lists of all else."""
    batch: dict[str, Any] = {
        name: [sample[name] for sample in samples] for name in ("boxes", "labels", "mask_targets")
    }
    batch["images"] = torch.stack([sample["images"] for sample in samples])
    return batch


if __name__ == "__main__":
    main()

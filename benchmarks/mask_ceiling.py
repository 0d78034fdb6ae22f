"""What a mask of S x S cells can hold at best: true masks, cropped to targets and pasted back.

``python -m benchmarks.mask_ceiling --root DIR`` with a data set in COCO's layout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from rich.console import Console

from deepmac.data.annotations.coco import instance_rle, read_coco
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.mask_targets import area_average
from deepmac.evaluation import Evaluation
from deepmac.predict.paste import masks_to_rles


def main(arguments: Sequence[str] | None = None) -> None:
    """Print mean IoU, boundary IoU and mask AP for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="data set folder in COCO's layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 32, 64])
    options = parser.parse_args(arguments)
    index = read_coco(*locate_coco(options.root, options.split), check_images="none")
    for size in options.sizes:
        evaluation = Evaluation(index, seen_category_ids=())
        for image in index.images:
            objects = [o for o in image.instances if o.segmentation is not None and not o.iscrowd]
            targets = [
                area_average(instance_rle(o, image.height, image.width), o.box, (size, size))
                for o in objects
            ]
            pasted = []
            if objects:
                boxes = torch.tensor([o.box for o in objects])
                pasted = masks_to_rles(torch.stack(targets), boxes, image.height, image.width)
            evaluation.add(
                image.id,
                boxes=[],
                scores=[],
                category_ids=[],
                masks=[],
                gt_box_masks={o.id: rle for o, rle in zip(objects, pasted, strict=True)},
            )
        best = evaluation.compute()["mask_gt_box"]
        Console(highlight=False).print(
            f"{size}x{size}: mIoU {best['mIoU']['all']:.4f}, boundary IoU "
            f"{best['boundary_IoU']['all']:.4f}, mask AP {best['AP']['all']:.4f}"
        )


if __name__ == "__main__":
    main()

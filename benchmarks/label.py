"""What ``deepmac label`` does in a second, and what one more box costs, beside Mask R-CNN.

``python -m benchmarks.label --root DIR`` with a data set in COCO's layout. Both sides take the
same files to run-length masks in one process, in turns, with random weights: speed does not depend
on them. Ours is the small network (tf_efficientnet_lite0, hourglass20) or ``--model``; the other is
torchvision's ``maskrcnn_resnet50_fpn`` at the same input size, told to return as many objects an
image as the data set has boxes on average.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import nn

from deepmac.class_map import ClassMap
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.images import read_image
from deepmac.label.inference import STAGES, Stopwatch
from deepmac.label.job import label
from deepmac.label.network import box_probabilities
from deepmac.label.settings import LabelSettings
from deepmac.models.card import ModelCard
from deepmac.models.files import build_model, load_model
from deepmac.nn.backbones import IMAGENET
from deepmac.predict.paste import mask_to_rle

_SMALL = {
    "backbone": "tf_efficientnet_lite0",
    "pyramid_width": 64,
    "head_channels": 64,
    "mask_head": "hourglass20",
    "num_init_channels": 32,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    options = _parser().parse_args(arguments)
    json_path, images = locate_coco(options.root, options.split)
    content = _boxes(json_path, options.images)
    boxes = len(content["annotations"])
    count = len({entry["image_id"] for entry in content["annotations"]})
    model = load_model(options.model) if options.model else _small_model(options.size)
    size = getattr(model.__dict__.get("card"), "image_size", options.size)
    threads = f"{torch.get_num_threads()} threads"
    device = torch.device(options.device)
    say = Console(highlight=False, soft_wrap=True).print
    say(
        f"label: {count} images with {boxes} boxes, input {size} x {size}, {device}, {threads}, "
        f"{options.workers} workers, median of {options.repeats} passes"
    )
    ours, theirs = [], []
    watch = Stopwatch(exact=True)
    masks = _MaskRCNN(size, max(1, round(boxes / count)), device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.json"
        path.write_text(json.dumps(content))
        for number in range(options.repeats + 1):  # the first warms up
            if number == 1:
                watch.seconds.update(dict.fromkeys(STAGES, 0.0))
            settings = LabelSettings(
                images=images,
                boxes=path,
                out=Path(folder) / f"out{number}.json",
                workers=options.workers,
                accelerator="gpu" if device.type == "cuda" else "cpu",
                quiet=True,
            )
            started = time.perf_counter()
            label(model, settings, watch)
            ours.append(time.perf_counter() - started)
            theirs.append(masks.run(content, images, warm_up=not number))
    spent, other = median(ours[1:]), median(seconds for seconds, _ in theirs[1:])
    made = theirs[-1][1]
    say(f"  deepmac label          {count / spent:7.2f} images/s {boxes / spent:8.1f} masks/s")
    say(f"  torchvision Mask R-CNN {count / other:7.2f} images/s {made / other:8.1f} masks/s")
    total = sum(watch.seconds.values())
    shares = ", ".join(f"{name} {100 * watch.seconds[name] / total:.0f} %" for name in STAGES)
    say(f"  share of the work: {shares}")
    one, more = _marginal(model.to(device), size, device, options.repeats)
    say(f"  one image, first box {1000 * one:.0f} ms, each further box {1000 * more:.2f} ms")


class _MaskRCNN:
    """Torchvision's, from files to run lengths, one image at a time as its users do."""

    def __init__(self, size: int, objects: int, device: torch.device) -> None:
        from torchvision.models.detection import maskrcnn_resnet50_fpn

        self.device = device
        self.network = maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, min_size=size, max_size=size,
            box_score_thresh=0.0, box_detections_per_img=objects,
        ).eval().to(device)  # fmt: skip

    @torch.inference_mode()
    def run(self, content: dict[str, Any], images: Path, *, warm_up: bool) -> tuple[float, int]:
        """(seconds, masks)."""
        used = {entry["image_id"] for entry in content["annotations"]}
        entries = [image for image in content["images"] if image["id"] in used]
        started, made = time.perf_counter(), 0
        for entry in entries[:1] if warm_up else entries:
            pixels = torch.from_numpy(read_image(images / entry["file_name"]))
            picture = pixels.permute(2, 0, 1).float().div(255).to(self.device)
            found = self.network([picture])[0]["masks"][:, 0].gt(0.5).cpu().numpy()
            made += len([mask_to_rle(mask) for mask in found])
        return time.perf_counter() - started, made


@torch.inference_mode()
def _marginal(
    model: nn.Module, size: int, device: torch.device, repeats: int
) -> tuple[float, float]:
    """Seconds of an image with one box, and of each of sixteen more."""
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, device=device)
    corners = torch.rand(1, 17, 2, device=device) * size / 2
    boxes = torch.cat([corners, corners + size / 4], dim=2)

    def seconds(count: int) -> float:
        valid = torch.ones(1, count, dtype=torch.bool, device=device)
        started = time.perf_counter()
        box_probabilities(model, image, boxes[:, :count], valid)
        return time.perf_counter() - started

    seconds(1), seconds(17)
    few, many = zip(*((seconds(1), seconds(17)) for _ in range(max(3, repeats))), strict=True)
    return median(few), (median(many) - median(few)) / 16


def _boxes(json_path: Path, images: int) -> dict[str, Any]:
    """The first images of a COCO file with objects, without their masks."""
    content: dict[str, Any] = json.loads(json_path.read_text(encoding="utf-8"))
    objects = [a for a in content["annotations"] if not a.get("iscrowd")]
    chosen = list(dict.fromkeys(entry["image_id"] for entry in objects))[:images]
    return {
        "images": [image for image in content["images"] if image["id"] in set(chosen)],
        "annotations": [
            {**entry, "segmentation": []} for entry in objects if entry["image_id"] in set(chosen)
        ],
        "categories": content["categories"],
    }


def _small_model(size: int) -> nn.Module:
    torch.manual_seed(0)
    classes = ClassMap((1,), ("object",), frozenset({1}))
    return build_model(ModelCard(_SMALL, IMAGENET, classes, size), source="the benchmark").eval()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="data set folder in COCO's layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--model", help="a model instead of the small one with random weights")
    parser.add_argument("--size", type=int, default=512, help="side of the network input")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


if __name__ == "__main__":
    main()

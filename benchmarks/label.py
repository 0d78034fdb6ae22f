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
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console

from benchmarks.table import Row, convolution_rate
from deepmac.class_map import ClassMap
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.images import read_image
from deepmac.label.inference import STAGES, Stopwatch
from deepmac.label.job import label
from deepmac.label.settings import LabelSettings
from deepmac.models.card import ModelCard
from deepmac.models.files import build_model, load_model
from deepmac.nn.backbones import IMAGENET
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.masks import box_probabilities
from deepmac.predict.paste import mask_to_rle
from deepmac.predict.runtime import RUNTIMES, prepared_network

BOX_FLOP = 0.66e9
_SMALL = {
    "backbone": "tf_efficientnet_lite0",
    "pyramid_width": 64,
    "head_channels": 64,
    "mask_head": "hourglass20",
    "num_init_channels": 32,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    options = parser().parse_args(arguments)
    found = measure(options)
    say = Console(highlight=False, soft_wrap=True).print
    say(f"label: {found.how}")
    for name, (seconds, masks) in {
        "deepmac label": (found.ours, found.boxes),
        "torchvision Mask R-CNN": (found.theirs, found.their_masks),
    }.items():
        speed = f"{found.images / seconds:7.2f} images/s {masks / seconds:8.1f} masks/s"
        say(f"  {name:22} {speed}")
    say(f"  share of the work: {found.shares}")
    say(
        f"  one image, first box {1000 * found.first_box:.0f} ms, each further box "
        f"{1000 * found.further_box:.2f} ms"
    )


class Measured(NamedTuple):
    """Of both sides; seconds of a pass over the images."""

    how: str
    images: int
    boxes: int
    ours: float
    theirs: float
    their_masks: int
    shares: str
    first_box: float
    further_box: float


def rows(quick: bool, root: Path) -> list[Row]:
    """For the table of ``make bench``."""
    few = ["--images", "4", "--repeats", "1", "--size", "64"] if quick else []
    options = parser().parse_args(["--root", str(root), "--device", "cpu", *few])
    found = measure(options)
    wide = measure(parser().parse_args([*_words(options), "--precision", "auto"]))
    sides = [("precision=32", found), ("precision=auto", wide)]
    if find_spec("openvino") is not None:
        other = [*_words(options), "--precision", "auto", "--runtime", "openvino"]
        sides.append(("the same, runtime=openvino", measure(parser().parse_args(other))))
    limit = None if quick else 1e3 * BOX_FLOP / convolution_rate()
    rows = [
        Row(f"label, {name}", "images/s", one.images / one.ours, "torchvision Mask R-CNN",
            one.images / one.theirs, 6.0, one.how, larger_is_better=True)
        for name, one in sides
    ]  # fmt: skip
    further = Row("label, each further box", "ms", 1e3 * found.further_box, limit=limit,
                  how="17 boxes against 1; limit: 0.66 GFLOP at the machine's rate")  # fmt: skip
    return [*rows, further]


def _words(options: argparse.Namespace) -> list[str]:
    names = ("root", "images", "repeats", "size", "device")
    return [word for name in names for word in (f"--{name}", str(getattr(options, name)))]


def measure(options: argparse.Namespace) -> Measured:
    """Run both sides in turns."""
    json_path, images = locate_coco(options.root, options.split)
    content = _boxes(json_path, options.images)
    boxes = len(content["annotations"])
    count = len({entry["image_id"] for entry in content["annotations"]})
    model = load_model(options.model) if options.model else _small_model(options.size)
    spec = InputSpec.of(model, None if options.model else options.size)
    size = spec.image_size
    device = torch.device(options.device)
    how = (
        f"{count} images with {boxes} boxes, input {size} x {size} ({spec.shape}; the peer's "
        f"longer side {options.size}), {device}, {torch.get_num_threads()} threads, "
        f"{options.workers} workers, precision {options.precision}, {options.runtime}, network "
        f"prepared before, median of {options.repeats} passes"
    )
    prepared = prepared_network(model.to(device), options.precision, options.runtime)
    ours, theirs = [], []
    watch = Stopwatch(exact=True)
    masks = _MaskRCNN(options.size, max(1, round(boxes / count)), device)
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
                precision=options.precision,
                runtime=options.runtime,
                quiet=True,
            )
            started = time.perf_counter()
            label(prepared, settings, watch)
            ours.append(time.perf_counter() - started)
            theirs.append(masks.run(content, images, warm_up=not number))
    total = sum(watch.seconds.values())
    shares = ", ".join(f"{name} {100 * watch.seconds[name] / total:.0f} %" for name in STAGES)
    one, more = _marginal(prepared, size, device, options.repeats)
    other = median(seconds for seconds, _ in theirs[1:])
    return Measured(how, count, boxes, median(ours[1:]), other, theirs[-1][1], shares, one, more)


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
    model: SegmentationNetwork, size: int, device: torch.device, repeats: int
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


def _small_model(size: int) -> SegmentationNetwork:
    torch.manual_seed(0)
    classes = ClassMap((1,), ("object",), frozenset({1}))
    return build_model(ModelCard(_SMALL, IMAGENET, classes, size), source="the benchmark").eval()


def parser() -> argparse.ArgumentParser:
    """Of the options of :func:`measure`."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", required=True, help="data set folder in COCO's layout")
    made.add_argument("--split", default="train")
    made.add_argument("--model", help="a model instead of the small one with random weights")
    made.add_argument("--size", type=int, default=512, help="side of the network input")
    made.add_argument("--images", type=int, default=32)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--precision", default="32", choices=("auto", "32", "bf16"))
    made.add_argument("--runtime", default="torch", choices=RUNTIMES)
    made.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return made


if __name__ == "__main__":
    main()

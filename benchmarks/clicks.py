"""What clicks are worth: ``python -m benchmarks.clicks --root COCO [--model MODEL] [--images N]``.

Masks of true boxes at the pictures' own pixels: mean IoU of the box alone, and after one click
after the other, each at the point of the largest wrong region that is farthest from its border (as
interactive segmentation is measured, with the wrong region's area in place of its width). Beside it
the same boxes through the same weights without the click head, which must be equal to the bit; and
CPU seconds of one click.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from deepmac.data.annotations.coco import instance_rle, read_coco
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.images import read_image
from deepmac.models.files import build_model, card_of, load_model
from deepmac.predict.points import AROUND
from deepmac.predict.predictor import Predictor

Mask = NDArray[np.bool_]
Click = tuple[float, float, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clicks", description=__doc__)
    parser.add_argument("--root", required=True, help="data set folder in COCO's layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="deepmac-lite")
    parser.add_argument("--images", type=int, help="the first so many of a shuffle; all by default")
    parser.add_argument("--most", type=int, default=5, help="clicks an object")
    parser.add_argument("--refine", nargs="+", default=["none", "edges"])
    parser.add_argument("--pictures", type=Path, help="folder for pictures of corrected masks")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = load_model(options.model)
    predictor, other = Predictor(model), Predictor(_without_click_head(model))
    index = read_coco(*locate_coco(options.root, options.split), check_images="none")
    order = np.random.default_rng(1).permutation(len(index.images))[: options.images]
    ious: dict[str, list[list[float]]] = {refine: [] for refine in options.refine}
    equal = True
    seconds: list[float] = []
    for number in order.tolist():
        image = index.images[number]
        objects = [o for o in image.instances if o.has_true_mask and not o.iscrowd]
        if not objects:
            continue
        pixels = read_image(image.path)
        boxes = np.array([o.box for o in objects])
        truth = [_decoded(o, *pixels.shape[:2]) for o in objects]
        for one in (predictor, other):
            one.set_image(pixels)
        equal &= np.array_equal(predictor.predict_crops(boxes), other.predict_crops(boxes))
        for refine in options.refine:
            found, clicks = _clicked(predictor, boxes, truth, options.most, refine, seconds)
            ious[refine] += found
            if options.pictures and refine == options.refine[-1]:
                _draw(options.pictures, image.id, pixels, predictor, boxes, truth, clicks, refine)
    print(f"{options.model}: {len(ious[options.refine[0]])} objects on {len(order)} pictures")
    print(f"masks of boxes alone, with and without the click head: {'equal' if equal else 'OTHER'}")
    print(f"mean IoU after clicks{''.join(f'{n:>8}' for n in range(options.most + 1))}")
    for refine, rows in ious.items():
        mean = np.mean(rows, axis=0)
        print(f"  --refine {refine:11}" + "".join(f"{value:8.4f}" for value in mean), flush=True)
    per_click = statistics.median(seconds) * 1000
    print(f"one click more, all of its mask anew: {per_click:.1f} ms of one core (median)")


def _clicked(
    predictor: Predictor,
    boxes: NDArray[np.float64],
    truth: list[Mask],
    most: int,
    refine: Any,
    seconds: list[float],
) -> tuple[list[list[float]], list[list[Click]]]:
    """IoU of each object after 0, 1, ... clicks, and the clicks."""
    clicks: list[list[Click]] = [[] for _ in boxes]
    found: list[list[float]] = [[] for _ in boxes]
    for number in range(most + 1):
        masks = predictor.predict(boxes, points=clicks, refine=refine).masks
        for row, true in enumerate(truth):
            mask = np.asarray(masks[row])
            found[row].append((mask & true).sum() / max(1, (mask | true).sum()))
            if number < most and (click := next_click(mask, true, boxes[row])) is not None:
                clicks[row].append(click)
    started = time.process_time()
    _ = predictor.predict(boxes[:1], points=clicks[:1], refine=refine).masks[0]
    seconds.append(time.process_time() - started)
    return found, clicks


def next_click(mask: Mask, true: Mask, box: NDArray[np.float64]) -> Click | None:
    """The point of the largest wrong region around a box that is farthest from its border.

    Args:
        mask: (H, W).
        true: (H, W).
        box: x0, y0, x1, y1.
    """
    far = AROUND * (box[2:] - box[:2])
    low = np.maximum(np.floor(box[:2] - far), 0).astype(int)
    high = np.ceil(box[2:] + far).astype(int)
    some = slice(low[1], high[1]), slice(low[0], high[0])
    best: tuple[int, int, Mask] | None = None
    for label, wrong in ((0, mask[some] & ~true[some]), (1, true[some] & ~mask[some])):
        regions, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(regions.ravel())[1:]
            if best is None or sizes.max() > best[0]:
                best = int(sizes.max()), label, regions == sizes.argmax() + 1
    if best is None:
        return None
    deep = ndimage.distance_transform_edt(np.pad(best[2], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(deep.argmax()), deep.shape)
    place = np.clip([x + low[0] + 0.5, y + low[1] + 0.5], box[:2] - far, box[2:] + far)
    return float(place[0]), float(place[1]), best[1]


def _without_click_head(model: Any) -> Any:
    """The same weights, and no click head."""
    card = card_of(model)
    assert card is not None
    plain = build_model(
        replace(card, network={**card.network, "click_head": None}), source="the model"
    )
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("click_head.")}
    plain.load_state_dict(kept)
    return plain.eval()


def _decoded(instance: Any, height: int, width: int) -> Mask:
    from pycocotools import mask as coco_mask

    decoded: Mask = coco_mask.decode(instance_rle(instance, height, width)).astype(bool)
    return decoded


def _draw(
    folder: Path,
    identity: int,
    pixels: NDArray[np.uint8],
    predictor: Predictor,
    boxes: NDArray[np.float64],
    truth: list[Mask],
    clicks: list[list[Click]],
    refine: Any,
) -> None:
    """The truth, the box alone, and after one, three, ... clicks, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    row = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
    x0, y0, x1, y1 = boxes[row]
    far = 0.15 * (boxes[row, 2:] - boxes[row, :2])
    low = np.maximum(boxes[row, :2] - far, 0).astype(int)
    high = (boxes[row, 2:] + far).astype(int)
    panels = []
    for number in (None, 0, 1, 3, 5):
        mine = clicks[row][: number or 0]
        mask = truth[row]
        if number is not None:
            mask = np.asarray(
                predictor.predict(boxes[row : row + 1], points=[mine], refine=refine).masks[0]
            )
        shown = pixels.astype(np.float64)
        shown[mask] = shown[mask] * 0.45 + np.array([30, 144, 255]) * 0.55
        for x, y, label in mine:
            radius = max(2, round(0.02 * max(x1 - x0, y1 - y0)))
            place = slice(int(y) - radius, int(y) + radius), slice(int(x) - radius, int(x) + radius)
            shown[place] = [0, 255, 0] if label else [255, 0, 0]
        part = Image.fromarray(shown[low[1] : high[1], low[0] : high[0]].astype(np.uint8))
        panels.append(part.resize((round(part.width * 240 / part.height), 240)))
    sheet = Image.new("RGB", (sum(p.width + 4 for p in panels), 240))
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + 4
    sheet.save(folder / f"{identity}.png")


if __name__ == "__main__":
    main()

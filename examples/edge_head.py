"""An edge head for a finished model, learned from what the model says of photographs with masks.

    python examples/edge_head.py --model deepmac-lite --root COCO --out runs/with_edges

First the model masks the objects of every training photograph in their boxes, once, as it does
later for users; the masks' cells, the pixels over them and the true masks are kept in ``OUT.crops``
(70 kB an object; if interrupted, the same command goes on). Then the edge head alone learns, from
objects of many photographs at a time. A photograph that the json names several times counts so many
times. One object in sixteen is kept back, to say what the head brings. All else of the model stays
as it is, to the bit in half precision.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from deepmac import Predictor, load_model
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.images import read_image
from deepmac.errors import UserError
from deepmac.files import new_folder, refuse_existing
from deepmac.guard import guarded
from deepmac.losses.edges import what_masks_lack
from deepmac.losses.grids import inside_boxes
from deepmac.models.files import build_model, card_of, own_threshold, write_model
from deepmac.nn.edge_head import GRIDS, EdgeHead
from deepmac.predict.refine import FEW_PIXELS, sample_picture

COARSE, FINE = GRIDS
PICTURES = 200
"""In a file of crops."""
OBJECTS = 12
"""Of a picture, at most."""
LEAST_SIDE, LEAST_AREA = 4, 16
"""Of objects that are learned from, pixels."""
BATCH = 32
KEPT_BACK = 16


def gather(model: str, images: Path, annotations: Path, folder: Path) -> None:
    """Crops of all objects with masks, in files of so many pictures; those that exist stay."""
    coco = COCO(str(annotations))
    times = Counter(image["file_name"] for image in coco.imgs.values())
    first = {image["file_name"]: key for key, image in reversed(coco.imgs.items())}
    names = sorted(first)
    predictor = Predictor(load_model(model), precision="auto", refine="none")
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for start in track(range(0, len(names), PICTURES), "what the model says"):
        path = folder / f"{start:07d}.safetensors"
        found: list[dict[str, Tensor]] = []
        some = names[start : start + PICTURES]
        if path.exists():
            continue
        for name in some:
            objects = coco.loadAnns(coco.getAnnIds(first[name], iscrowd=False))
            chosen = random.permutation(len(objects))[:OBJECTS]
            rows = _of_picture(predictor, coco, images / name, [objects[i] for i in chosen])
            found += [{**row, "times": torch.tensor(float(times[name]))} for row in rows]
        if found:
            joined = {key: torch.stack([row[key] for row in found]) for key in found[0]}
            unfinished = path.with_suffix(".part")
            save_file(joined, unfinished)
            unfinished.replace(path)


def _of_picture(
    predictor: Predictor, coco: COCO, path: Path, objects: list[dict[str, Any]]
) -> list[dict[str, Tensor]]:
    boxes, masks = [], []
    for each in objects:
        x, y, width, height = each["bbox"]
        if not each.get("segmentation") or min(width, height) < LEAST_SIDE:
            continue
        mask = coco.annToMask(each)
        if mask.sum() >= LEAST_AREA:
            edge = mask.shape[1], mask.shape[0]
            boxes.append(np.clip([x, y, x + width, y + height], 0, [*edge, *edge]))
            masks.append(mask)
    if not boxes:
        return []
    seen = read_image(path)
    predictor.set_image(seen)
    cells = torch.from_numpy(predictor.predict_crops(np.stack(boxes))).half()
    corners = torch.from_numpy(np.stack(boxes))
    frames = predictor.network.mask_frames(corners)
    picture = torch.from_numpy(seen).permute(2, 0, 1)
    rows = []
    for i, mask in enumerate(masks):
        own = frames[i : i + 1]
        truth = torch.from_numpy(255 * mask)[None].expand(3, -1, -1)
        low, high = own[:, :2].repeat(1, 2), own[:, 2:].repeat(1, 2)
        rows.append(
            {
                "cells": cells[i],
                "pixels": (255 * sample_picture(picture, own, FINE)[0]).round().byte(),
                "truth": (255 * sample_picture(truth, own, FINE)[0, 0]).round().byte(),
                "box": ((corners[i : i + 1] - low) / (high - low))[0].float(),
                "few": (own[0, 2:] - own[0, :2]).amax() <= FEW_PIXELS,
            }
        )
    return rows


class Crops:
    """All crops in memory.

    Args:
        folder: of ``gather``.
    """

    def __init__(self, folder: Path) -> None:
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        if not files:
            raise UserError(f"no object in {folder} has a mask to learn from: give a json of some")
        self.rows = {key: torch.cat([part[key] for part in files]) for key in files[0]}
        kept = torch.arange(len(self)) % KEPT_BACK == 0
        few = self.rows["few"]
        self.learned = {COARSE: (few & ~kept).nonzero()[:, 0], FINE: (~few & ~kept).nonzero()[:, 0]}
        self.kept = {COARSE: (few & kept).nonzero()[:, 0], FINE: (~few & kept).nonzero()[:, 0]}

    def __len__(self) -> int:
        return len(self.rows["times"])

    def some(self, index: Tensor, grid: int, *, vary: bool) -> tuple[Tensor, ...]:
        """Cells, pixels, true masks, and the cells within the boxes, of a grid."""
        rows = {key: value[index] for key, value in self.rows.items()}
        cells = rows["cells"].float()
        pixels, truth = (rows[key].float() / 255 for key in ("pixels", "truth"))
        size = FINE // grid
        pixels, truth = (F.avg_pool2d(value, size) for value in (pixels, truth[:, None]))
        frame = torch.tensor([0.0, 0, 1, 1]).expand(len(index), 4)
        within, truth = inside_boxes(rows["box"], frame, (grid, grid)), truth[:, 0]
        if vary:
            turned = torch.rand(len(index)) < 0.5
            for value in (cells, pixels, truth, within):
                value[turned] = value[turned].flip(-1)
            gain = 0.9 + 0.2 * torch.rand(len(index), 3, 1, 1)
            light = 0.1 * torch.rand(len(index), 1, 1, 1) - 0.05
            pixels = (gain * pixels + light).clamp(0, 1)
        return cells, pixels, truth, within


def learn(head: EdgeHead, crops: Crops, *, threshold: float, steps: int, lr: float) -> None:
    """AdamW with a cosine schedule, on the two grids by turns."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=1e-4)
    used = [grid for grid, rows in crops.learned.items() if len(rows)]
    for step in track(range(steps), "the edge head learns"):
        for group in optimizer.param_groups:
            rise, fall = min(1.0, (step + 1) / 50), 0.5 + 0.5 * math.cos(math.pi * step / steps)
            group["lr"] = lr * rise * fall
        grid = used[step % len(used)]
        rows = crops.learned[grid]
        index = rows[torch.multinomial(crops.rows["times"][rows], BATCH, replacement=True)]
        cells, pixels, truth, within = crops.some(index, grid, vary=True)
        loss = what_masks_lack(head(cells, pixels), truth, within, threshold=threshold).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()


@torch.inference_mode()
def kept_back_iou(head: EdgeHead | None, crops: Crops, threshold: float) -> tuple[float, float]:
    """Mean IoU of the objects kept back, on their grids, and the share of 0.9 or more."""
    seen = []
    for grid, rows in crops.kept.items():
        for index in rows.split(BATCH):
            cells, pixels, truth, within = crops.some(index, grid, vary=False)
            if head is None:
                found = F.interpolate(cells[:, None], size=grid, mode="bilinear")[:, 0]
            else:
                found = head(cells, pixels).sigmoid()
            mask, true = (found > threshold) & (within > 0), (truth > 0.5) & (within > 0)
            union = (mask | true).sum((1, 2)).clamp(min=1)
            seen.append((mask & true).sum((1, 2)) / union)
    iou = torch.cat(seen)
    return iou.mean().item(), (iou >= 0.9).float().mean().item()


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepmac-lite", help="folder, checkpoint or name")
    parser.add_argument("--root", type=Path, required=True, help="COCO folder with masks")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=16, help="of a new head, where there is none")
    parser.add_argument("--anew", action="store_true", help="a new head, although there is one")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    refuse_existing(given.out)
    torch.manual_seed(given.seed)
    network = load_model(given.model)
    card, threshold = card_of(network), own_threshold(network)
    assert card is not None  # load_model gives one to every network
    if given.anew or network.edge_head is None:
        card = replace(card, network={**card.network, "edge_channels": given.width})
        fresh = build_model(card, source=str(given.model))
        state = {k: v for k, v in network.state_dict().items() if not k.startswith("edge_head.")}
        fresh.load_state_dict(state, strict=False)
        network = fresh.eval()
    head = network.edge_head
    if head is None:
        raise UserError(f"{given.model} is a network that has no place for an edge head")
    folder = given.out.with_name(given.out.name + ".crops")
    annotations, images = locate_coco(given.root, "train")
    gather(given.model, images, annotations, folder)
    crops = Crops(folder)
    print(f"{len(crops)} objects; mean IoU of those kept back, and share of 0.9 or more:")
    print("  without a head: {:.4f}, {:.3f}".format(*kept_back_iou(None, crops, threshold)))
    print("  before:         {:.4f}, {:.3f}".format(*kept_back_iou(head, crops, threshold)))
    learn(head, crops, threshold=threshold, steps=given.steps, lr=given.lr)
    print("  after:          {:.4f}, {:.3f}".format(*kept_back_iou(head, crops, threshold)))
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    with new_folder(given.out) as place:
        write_model(place, state, card)
    shutil.rmtree(folder)
    print(f"the model with its edge head -> {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))

"""Single functions beside the original's: targets, crop, schedule, Adam, augmentations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from table import DTYPES, Answer, Dtype, Pair, read
from torchvision import tv_tensors

from deepmac.data.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from deepmac.data.transforms.compose import (
    RandomSquareCrop,
    crop_border,
    square_crop,
    square_crop_window,
)
from deepmac.lightning.optim.schedule import learning_rate_factor
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from deepmac.losses.center_targets import center_targets
from deepmac.nn.roi_crop import corner_aligned_crop

COLORS = {
    "hue": adjust_hue,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "brightness": adjust_brightness,
}


def answers(folder: Path, dtype: Dtype) -> Iterator[Answer]:
    yield from crop(folder / "crop.npz", dtype)
    yield from adam(folder / "adam.npz", dtype)
    if dtype == "float32":
        yield from targets(folder / "targets.npz")
        yield from schedule(folder / "schedule.npz")
        yield from colors(folder / "colors.npz")
        yield from square_crops(folder / "square_crops.npz")


def crop(path: Path, dtype: Dtype) -> Iterator[Answer]:
    arrays = read(path)
    features = torch.from_numpy(arrays["features"]).permute(0, 3, 1, 2).to(DTYPES[dtype])
    height, width = features.shape[-2:]
    boxes = torch.from_numpy(arrays["boxes"])[..., [1, 0, 3, 2]].to(DTYPES[dtype])
    boxes = boxes * torch.tensor([width, height, width, height])
    rows, columns = arrays["cells"].tolist()
    ours = corner_aligned_crop(features, boxes, (rows, columns)).permute(0, 1, 3, 4, 2)
    yield Answer("crop op", "crops", [Pair(ours, arrays["crops"])])


def adam(path: Path, dtype: Dtype) -> Iterator[Answer]:
    arrays = read(path)
    parameter = torch.nn.Parameter(torch.from_numpy(arrays["start"]).to(DTYPES[dtype]))
    optimizer = TensorFlowAdam([parameter], lr=1.0)
    ours, formula = [], []
    first, second = np.zeros(len(parameter)), np.zeros(len(parameter))
    place = arrays["start"].astype(np.float64)
    for step, (gradient, rate) in enumerate(
        zip(arrays["gradients"], arrays["rates"], strict=True), start=1
    ):
        optimizer.param_groups[0]["lr"] = float(rate)
        parameter.grad = torch.from_numpy(gradient).to(DTYPES[dtype])
        optimizer.step()
        ours.append(parameter.detach().clone())
        wide = gradient.astype(np.float64)
        first = 0.9 * first + 0.1 * wide
        second = 0.999 * second + 0.001 * wide**2
        size = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        place = place - size * first / (np.sqrt(second) + 1e-7)
        formula.append(place)
    # Parameter by parameter: the smallest gradients are a tenth of epsilon's size and below.
    mine, its = np.stack([step.numpy() for step in ours], 1), arrays["steps"].T
    pairs = [Pair(*pair) for pair in zip(mine, its, strict=True)]
    # In float64, too, Keras corrects the bias with float32 betas.
    yield Answer("Adam", "ten steps", pairs, (1e-5, 1e-5))
    pairs = [Pair(*pair) for pair in zip(mine, np.stack(formula, 1), strict=True)]
    yield Answer("Adam", "ten steps beside the formula", pairs, (1e-5, 1e-9))


def targets(path: Path) -> Iterator[Answer]:
    arrays = read(path)
    height, width = arrays["size"].tolist()
    boxes = torch.from_numpy(arrays["boxes"])[:, [1, 0, 3, 2]]
    boxes = boxes * torch.tensor([width, height, width, height])
    valid = torch.from_numpy(arrays["weights"]) > 0
    drawn = center_targets(
        boxes[None],
        torch.from_numpy(arrays["labels"])[None],
        valid[None],
        num_classes=arrays["heatmap"].shape[-1],
        map_size=(height // 4, width // 4),
        stride=4,
        radius_rule="original",
    )
    part = "targets"
    pair = Pair(drawn.heatmap[0].permute(1, 2, 0), arrays["heatmap"])
    yield Answer(part, "heatmap", [pair], (1e-6, None), absolute=True)
    cells = arrays["cells"][:, 1] * (width // 4) + arrays["cells"][:, 2]
    used = valid.numpy()
    pair = Pair(drawn.cell[0].numpy()[used], cells[used])
    yield Answer(part, "indices", [pair], (0.0, None), absolute=True)
    for name, ours in (("sizes", drawn.size), ("offsets", drawn.offset)):
        pair = Pair(ours[0].numpy()[used][:, ::-1], arrays[name][used])
        yield Answer(part, f"{name}, cells", [pair], (1e-4, None), absolute=True)


def schedule(path: Path) -> Iterator[Answer]:
    arrays = read(path)
    ours = [
        1e-3
        * learning_rate_factor(int(step), total_steps=50_000, warmup_steps=5000, warmup_factor=0.25)
        for step in arrays["steps"]
    ]
    yield Answer(
        "schedule", "learning rates", [Pair(np.array(ours), arrays["rates"])], (1e-6, None)
    )


def colors(path: Path) -> Iterator[Answer]:
    arrays = read(path)
    image = torch.from_numpy(arrays["image"]).permute(2, 0, 1) / 255
    for name, change in COLORS.items():
        pairs = [
            # The original clips to 0..255 after every operation.
            Pair(
                change(image, float(arrays[f"{name}_drawn::{draw}"])).clamp(0, 1),
                np.moveaxis(arrays[f"{name}::{draw}"] / 255, -1, 0),
            )
            for draw in range(3)
        ]
        yield Answer("colour", f"{name}, of 1", pairs, (1e-5, None), absolute=True)


def square_crops(path: Path) -> Iterator[Answer]:
    arrays = read(path)
    image = tv_tensors.Image(torch.from_numpy(arrays["image"]).permute(2, 0, 1))
    height, width = image.shape[-2:]
    assert crop_border(128, height) <= height // 2
    size = torch.tensor([width, height, width, height])
    canvas = tv_tensors.BoundingBoxes(
        torch.from_numpy(arrays["boxes"])[:, [1, 0, 3, 2]] * size,
        format="XYXY",
        canvas_size=(height, width),
    )
    masks = tv_tensors.Mask(torch.from_numpy(arrays["masks"]))
    scales = RandomSquareCrop().scales
    found: dict[str, list[Pair]] = {"image, of 1": [], "boxes": [], "masks": [], "kept objects": []}
    for draw in range(sum(key.startswith("drawn::") for key in arrays)):
        scale, y, x = arrays[f"drawn::{draw}"].tolist()
        window = square_crop_window(height, width, scales[scale], y, x)
        theirs = np.moveaxis(arrays[f"image::{draw}"], -1, 0) / 255
        found["image, of 1"].append(Pair(square_crop(image, **window) / 255, theirs))
        boxes = square_crop(canvas, **window)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
        found["kept objects"].append(Pair(kept.nonzero()[:, 0], arrays[f"labels::{draw}"]))
        ours = torch.Tensor(boxes[kept][:, [1, 0, 3, 2]]) / window["side"]
        found["boxes"].append(Pair(ours, arrays[f"boxes::{draw}"]))
        found["masks"].append(Pair(square_crop(masks, **window)[kept], arrays[f"masks::{draw}"]))
    for name, pairs in found.items():
        bound = 0.0 if name in ("masks", "kept objects") else 1e-5
        yield Answer("random square crop", name, pairs, (bound, None), absolute=True)

"""Rows of ``docs/fidelity.md`` about single functions, losses and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from test_losses_against_tf import (
    ILL_CONDITIONED,
    INSIDE,
    ORIGINAL,
    PLAIN,
    TRAINED,
    WEAK,
    Case,
    load,
    our_name,
)
from test_losses_against_tf import training_step as step_of
from torchvision import tv_tensors

from deepmac.data.transforms.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)
from deepmac.data.transforms.compose import square_crop, square_crop_window
from deepmac.lightning.optim.schedule import learning_rate_factor
from deepmac.lightning.optim.tensorflow_adam import TensorFlowAdam
from deepmac.losses.center_targets import center_targets, gaussian_radius

Arrays = dict[str, np.ndarray]
DRAWS = 30
COLORS = {
    "hue_p0.015": (adjust_hue, 0.015),
    "contrast_1.2": (adjust_contrast, 1.2),
    "saturation_0.85": (adjust_saturation, 0.85),
    "brightness_0.1": (adjust_brightness, 0.1),
}


class Row(NamedTuple):
    part: str
    what: str
    error: float
    bound: str
    why: str = ""


def targets(arrays: Arrays) -> Iterator[Row]:
    worst = dict.fromkeys(("heatmap", "sizes and offsets, cells", "indices that differ"), 0.0)
    used = torch.from_numpy(arrays["weights"] > 0)
    for height, width in ((128, 128), (96, 160)):
        size = np.array([width, height, width, height], dtype=np.float32)
        ours = center_targets(
            torch.from_numpy(arrays["boxes"][:, [1, 0, 3, 2]] * size)[None],
            torch.from_numpy(arrays["classes"].argmax(1))[None],
            used[None],
            num_classes=5,
            map_size=(height // 4, width // 4),
            stride=4,
            radius_rule="original",
        )
        shape = f"{height}x{width}"
        theirs = arrays[f"heatmap_{shape}"][0].transpose(2, 0, 1)
        cells = arrays[f"indices_{shape}"]
        # Centres beyond the map run into the next row there; ours stay within.
        inside = (cells[:, 1] < height // 4) & (cells[:, 2] < width // 4) & used.numpy()
        flat = cells[:, 1] * (width // 4) + cells[:, 2]
        sizes = ours.size[0].numpy()[inside] - arrays[f"hw_{shape}"][inside][:, ::-1]
        offsets = ours.offset[0].numpy()[inside] - arrays[f"offset_{shape}"][inside][:, ::-1]
        errors = (
            np.abs(ours.heatmap[0].numpy() - theirs).max(),
            max(np.abs(sizes).max(), np.abs(offsets).max()),
            (ours.cell[0].numpy()[inside] != flat[inside]).sum(),
        )
        worst = {k: max(worst[k], float(e)) for k, e in zip(worst, errors, strict=True)}
    for (what, error), bound in zip(worst.items(), ("1e-6", "", "0"), strict=True):
        yield Row("targets", what, error, bound)
    sides = torch.from_numpy(arrays["rad_h"]), torch.from_numpy(arrays["rad_w"])
    radius = gaussian_radius(*sides, rule="original").numpy()
    error = float((np.abs(radius - arrays["max_distance"]) / arrays["max_distance"].max()).max())
    why = "without `compat`: the roots are divided by a, as CornerNet meant them"
    yield Row("targets", "Gaussian radius, relative", error, "1e-6", why)


def schedule(arrays: Arrays) -> Iterator[Row]:
    official = {"total_steps": 50_000, "warmup_steps": 5000, "warmup_factor": 0.25}
    ours = [1e-3 * learning_rate_factor(int(step), **official) for step in arrays["lr_steps"]]
    error = float(np.abs(np.array(ours) - arrays["lr"]).max() / arrays["lr"].max())
    yield Row("learning rates", "relative to the peak", error, "1e-6")


def colors(arrays: Arrays) -> Iterator[Row]:
    image = torch.from_numpy(arrays["aug_image"]).permute(2, 0, 1) / 255
    for name, (change, amount) in COLORS.items():
        theirs = torch.from_numpy(arrays[name]).permute(2, 0, 1) / 255
        error = float((change(image, amount).clamp(0, 1) - theirs).abs().max())
        why = "the four in a row are rounded to whole grey levels once" if "hue" in name else ""
        yield Row("colour", f"{name.partition('_')[0]}, of 1", error, "1e-5", why)


def square_crops(arrays: Arrays) -> Iterator[Row]:
    image = tv_tensors.Image(torch.from_numpy(arrays["aug_image"]).permute(2, 0, 1))
    masks = tv_tensors.Mask(torch.from_numpy(arrays["sq_masks_in"]))
    height, width = image.shape[-2:]
    boxes = torch.from_numpy(arrays["sq_boxes_in"])[:, [1, 0, 3, 2]]
    canvas = tv_tensors.BoundingBoxes(
        boxes * torch.tensor([width, height, width, height]),
        format="XYXY",
        canvas_size=(height, width),
    )
    pixels, edges, wrong = 0.0, 0.0, 0
    for draw in range(6):
        scale, y, x = (float(arrays[f"sq{draw}_{k}"]) for k in ("scale", "y_center", "x_center"))
        window = square_crop_window(height, width, scale, int(y), int(x))
        theirs = torch.from_numpy(arrays[f"sq{draw}_image"]).permute(2, 0, 1)
        pixels = max(pixels, float((square_crop(image, **window) - theirs).abs().max() / 255))
        cut = square_crop(canvas, **window)
        kept = ((cut[:, 2:] - cut[:, :2]) > 0).all(dim=1)
        ours = torch.Tensor(cut[kept])[:, [1, 0, 3, 2]].numpy() / window["side"]
        edges = max(edges, float(np.abs(ours - arrays[f"sq{draw}_boxes"]).max()))
        theirs = torch.from_numpy(arrays[f"sq{draw}_masks"])
        wrong += int((square_crop(masks, **window)[kept].to(torch.uint8) != theirs).sum())
    yield Row("random square crop", "image, of 1", pixels, "1e-5")
    yield Row("random square crop", "boxes, of the side", edges, "1e-5")
    yield Row("random square crop", "mask pixels that differ", wrong, "0")


def adam() -> Iterator[Row]:
    """Beside the formula, in float64; the live comparison has Keras' own steps."""
    random = np.random.default_rng(0)
    gradients = random.normal(0, 1, (10, 50)) * np.logspace(-9, 1, 50)
    parameter = torch.nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = TensorFlowAdam([parameter], lr=1e-3, eps=1e-7)
    first, second, place = np.zeros(50), np.zeros(50), np.zeros(50)
    worst = 0.0
    for step, gradient in enumerate(gradients, start=1):
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        size = 1e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        place = place - size * first / (np.sqrt(second) + 1e-7)
        worst = max(worst, float((np.abs(parameter.detach().numpy() - place) / abs(place)).max()))
    why = "without `compat`: torch's Adam, whose epsilon is corrected for bias"
    yield Row("Adam", "ten steps, relative (float64)", worst, "1e-9", why)


def losses(shared: Path | None) -> Iterator[Row]:
    """Every case that there is a fixture of."""
    for name in (*PLAIN, *WEAK):
        folder = INSIDE if (INSIDE / f"{name}.npz").is_file() else shared
        if folder is None:
            continue
        case = load(folder, name)
        with torch.no_grad():
            case.model.eval()
            values = case.losses()
        part = f"losses {name}"
        yield Row(part, "evaluation, relative", worst_loss(values, case.io, "loss::"), "1e-4")
        if name not in TRAINED:
            continue
        values, norms = step_of(case, case.batch["images"])
        yield Row(part, "training, relative", worst_loss(values, case.io, "train_loss::"), "1e-4")
        part, error = f"gradient norms {name}", worst_norm(norms, case.io)
        note = " (2)" if error > 1e-3 else ""
        yield Row(part, f"largest of {len(norms)}, relative", error, f"1e-3{note}")
        if name in ILL_CONDITIONED:
            moved = [worst_norm(step_of(case, images)[1], case.io) for images in nudges(case)]
            yield Row(
                part, f"the same, picture moved by rounding: least of {DRAWS}", min(moved), ""
            )
            yield Row(part, f"the same, picture moved by rounding: most of {DRAWS}", max(moved), "")


def nudges(case: Case) -> Iterator[torch.Tensor]:
    """The pictures, each pixel off by a few of float32's last digits."""
    images = case.batch["images"].float()
    for seed in range(DRAWS):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        yield images * (1 + 3e-7 * noise)


def worst_norm(ours: dict[str, float], io: Arrays) -> float:
    theirs = {k.removeprefix("gradnorm::"): float(v) for k, v in io.items() if "gradnorm::" in k}
    return max(abs(ours[our_name(key)] - norm) / norm for key, norm in theirs.items())


def worst_loss(ours: dict[str, torch.Tensor], io: Arrays, phase: str) -> float:
    theirs = {name: float(io[f"{phase}Loss/{ORIGINAL[name]}"]) for name in ours}
    return max(abs(float(ours[name].detach()) - theirs[name]) / abs(theirs[name]) for name in ours)

"""Losses and gradients are those of the TensorFlow original, on one fixed ground truth.

The fixtures hold small models, weights included, with the losses of evaluation and, for some, of
a training step, whose gradient's norm is given for every kernel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from deepmac.convert import convert_variables
from deepmac.convert.conversion import convert_model_variables
from deepmac.convert.settings import read_settings
from deepmac.data.original.soft_targets import original_mask_targets
from deepmac.losses.criterion import DeepMACCriterion
from deepmac.losses.options import (
    BoxConsistency,
    ColorConsistency,
    LossOptions,
    PointSupervision,
    WeakLossOptions,
)
from deepmac.losses.original import OriginalCriterion, OriginalWeakLosses
from deepmac.losses.weak import dice
from deepmac.models.files import build_model
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.full_resolution import original_resize
from deepmac.nn.stages import StageOutput
from deepmac.protobuf.text_proto import parse_text_proto

Arrays = dict[str, np.ndarray]
INSIDE = Path(__file__).parent / "fixtures" / "losses"
ORIGINAL = {
    "heatmap": "object_center",
    "size": "box/scale",
    "offset": "box/offset",
    "mask": "deep_mask_estimation",
    "box_consistency": "deep_mask_box_consistency",
    "color_consistency": "deep_mask_color_consistency",
    "point_supervision": "deep_mask_pointly_supervised",
}
WEIGHTS = {"heatmap": 1.0, "size": 0.1, "offset": 1.0, "mask": 5.0}
KERNELS = {
    "condinst3_fullres": "cond_inst3",
    "embproj": "embedding_projection",
    **dict.fromkeys(("rel_all_classes", "rel_voc_like", "rel_fullres"), "rel_hourglass10"),
    "rel_dice": "rel_hourglass10",
}
VOC_LIKE = ("official_voc_like", "rel_voc_like", "box_consistency_crop", "boxinst_fullres")
WEAK = {
    "box_consistency_crop": WeakLossOptions(BoxConsistency(2.0)),
    "boxinst_fullres": WeakLossOptions(BoxConsistency(2.0), ColorConsistency(1.0)),
    "boxinst_fullres_balanced": WeakLossOptions(BoxConsistency(2.0, "balanced")),
    "boxinst_fullres_tight_gtcount": WeakLossOptions(
        BoxConsistency(2.0, "groundtruth_count", tightness=True)
    ),
    "points_fullres": WeakLossOptions(point_supervision=PointSupervision(3.0)),
}
PLAIN = (
    "official_all_classes",
    "official_voc_like",
    "only_last_stage",
    "condinst3_fullres",
    "embproj",
    "rel_all_classes",
    "rel_voc_like",
    "rel_fullres",
)
TRAINED = (
    "official_all_classes",
    "official_voc_like",
    "boxinst_fullres",
    "condinst3_fullres",
    "rel_all_classes",
    "rel_voc_like",
    "rel_fullres",
)

# One image at a time, the mask head's norms see few rows: rounding flips some of its ReLUs. There
# a norm may differ by three times what our own differs when the image moves by rounding.
ILL_CONDITIONED = ("rel_all_classes", "rel_voc_like")


class Case(NamedTuple):
    name: str
    io: Arrays
    model: DeepMAC
    batch: dict[str, Tensor]
    masks: Tensor

    @property
    def release(self) -> bool:
        return self.name.startswith("rel_")

    def losses(self) -> dict[str, Tensor]:
        """Weighted losses by our names, in the mode that the model is in."""
        stages = self.model(self.batch["images"])
        used = stages[-1:] if self.name == "only_last_stage" else stages
        logits = [self.logits(stage) for stage in used]
        return {**self.supervised(stages, logits), **self.weak(logits)}

    def logits(self, stage: StageOutput) -> Tensor:
        """Of every row: the original runs padding through the mask head, too."""
        boxes = self.batch["boxes"]
        if not self.release:
            return self.model.mask_logits(stage, boxes)
        images = [
            StageOutput(*(None if m is None else m[i : i + 1] for m in stage))
            for i in range(len(boxes))
        ]
        return torch.cat(
            [self.model.mask_logits(one, boxes[i : i + 1]) for i, one in enumerate(images)]
        )

    def supervised(self, stages: list[StageOutput], logits: list[Tensor]) -> dict[str, Tensor]:
        options = LossOptions(
            radius_rule="original",
            probability_clip=1e-4,
            mask_normalization="image" if self.release else "batch",
            use_only_last_stage=self.name == "only_last_stage",
        )
        batch, targets = self.batch, self.masks
        if self.model.full_resolution:
            logits = [original_resize(one, targets.shape[-2:]) for one in logits]
        else:
            targets = original_mask_targets(targets, batch["boxes"], self.model.mask_size)
        batch = {**batch, "mask_targets": targets * batch["mask_valid"][..., None, None]}
        losses = DeepMACCriterion(options)(stages, logits, batch, stride=self.model.stride)
        return {name: weight * losses[name] for name, weight in WEIGHTS.items()}

    def weak(self, logits: list[Tensor]) -> dict[str, Tensor]:
        options = WEAK.get(self.name)
        if options is None:
            return {}
        full = self.model.full_resolution
        valid = self.batch["valid"].float()
        stages = [
            OriginalWeakLosses(options)(one, self.batch, full_resolution=full, stride=4)
            for one in logits
        ]
        return {
            name: weight
            * torch.stack([(one[name] * valid).sum() for one in stages]).mean()
            / valid.sum()
            for name, weight in options.weak_weights().items()
        }


@cache
def load(folder: Path, name: str) -> Case:
    io = read(folder / f"{name}.npz")
    kernels = read(folder / f"weights_{KERNELS.get(name, 'hourglass10')}.npz")
    variables = {k.removeprefix("w::"): v for k, v in {**kernels, **io}.items() if "w::" in k}
    settings = read_settings(parse_text_proto(str(io["config"])))
    state, card, report = convert_model_variables(variables, settings, source=name)
    assert not report.unused
    model = build_model(card, source=name)
    model.load_state_dict(state)
    truth = io if "gt::boxes" in io else read(folder / "official_all_classes.npz")
    masks = torch.from_numpy(truth["gt::masks"])
    return Case(name, io, model, ground_truth(io, truth, name), masks)


def ground_truth(io: Arrays, truth: Arrays, name: str) -> dict[str, Tensor]:
    images = torch.from_numpy(io["images"]).permute(0, 3, 1, 2)
    side = images.shape[-1]
    boxes = torch.from_numpy(truth["gt::boxes"])[..., [1, 0, 3, 2]] * side
    labels = torch.from_numpy(truth["gt::classes"]).argmax(2)
    valid = torch.from_numpy(truth["gt::weights"]) > 0
    allowed = (labels == 0) | (labels == 2) if name in VOC_LIKE else torch.ones_like(valid)
    return {
        "images": images,
        "true_sizes": torch.from_numpy(io["true_image_shapes"][:, :2]).long(),
        "boxes": boxes,
        "mask_boxes": boxes,
        "labels": labels,
        "valid": valid,
        "mask_valid": valid & allowed,
        "ignore": torch.zeros(len(images), side // 4, side // 4, dtype=torch.bool),
        "points": torch.from_numpy(truth["gt::keypoints"])[..., [1, 0]] * side,
        "point_labels": (torch.from_numpy(truth["gt::keypoint_depths"]) > 0).float(),
        "has_class": torch.from_numpy(truth["gt::classes"]).sum(2) > 0,
    }


def read(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return dict(arrays)


def check(case: Case, losses: dict[str, Tensor], phase: str) -> None:
    expected = {k.removeprefix(phase): v for k, v in case.io.items() if k.startswith(phase)}
    assert len(losses) == len(expected)
    for name, value in losses.items():
        theirs = float(expected[f"Loss/{ORIGINAL[name]}"])
        assert value.item() == pytest.approx(theirs, rel=1e-4), name


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """Where the case lies: two with the tests, the others in the optional folder."""
    case = getattr(request.node, "callspec", None)
    if case is not None and (INSIDE / f"{case.params['name']}.npz").is_file():
        return INSIDE
    shared: Path = request.getfixturevalue("shared")
    return shared / "reference_fixtures" / "losses"


@pytest.mark.parametrize("name", [*PLAIN, *WEAK])
def test_losses__are_the_originals(name: str, folder: Path) -> None:
    case = load(folder, name)
    case.model.eval()
    with torch.no_grad():
        check(case, case.losses(), "loss::")


@pytest.mark.parametrize("name", TRAINED)
def test_gradients__are_the_originals(name: str, folder: Path) -> None:
    case = load(folder, name)
    theirs = {
        our_name(key.removeprefix("gradnorm::")): float(value)
        for key, value in case.io.items()
        if key.startswith("gradnorm::")
    }
    losses, ours = training_step(case, case.batch["images"])
    check(case, losses, "train_loss::")
    assert theirs.keys() == ours.keys()
    rounding = dict.fromkeys(theirs, 0.0)
    if name in ILL_CONDITIONED:
        for seed in range(4):
            _, other = training_step(case, nudged(case.batch["images"], seed))
            rounding = {key: max(rounding[key], abs(other[key] - ours[key])) for key in theirs}
    errors = {key: abs(ours[key] - norm) / norm for key, norm in theirs.items()}
    noise = {key: rounding[key] / norm for key, norm in theirs.items()}
    assert [key for key in theirs if errors[key] > max(1e-3, 3 * noise[key])] == []
    assert np.median(list(errors.values())) <= max(1e-4, np.median(list(noise.values())))


def training_step(case: Case, images: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Losses, and the norm of their sum's gradient, by parameter; leaves the model as it was."""
    state = {key: value.clone() for key, value in case.model.state_dict().items()}
    case.model.train().zero_grad()
    losses = case._replace(batch={**case.batch, "images": images}).losses()
    torch.stack(list(losses.values())).sum().backward()
    case.model.load_state_dict(state)
    norms = {
        key: p.grad.norm().item() for key, p in case.model.named_parameters() if p.grad is not None
    }
    return losses, norms


def nudged(images: Tensor, seed: int) -> Tensor:
    """Moved by one part in a million, about what float32 rounding does on the way."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images.float() * (1 + 1e-6 * noise)


def our_name(key: str) -> str:
    (name,) = convert_variables({key: np.zeros(1, dtype=np.float32)})
    return name


def test_overlapping_boxes_of_a_class__cost_what_they_cost_in_the_original(folder: Path) -> None:
    case = load(folder, "ignore_overlap")
    case.model.eval()
    batch = case.batch
    targets = original_mask_targets(case.masks, batch["boxes"], case.model.mask_size)
    criterion = OriginalCriterion(LossOptions(), case.model.conventions)
    counted = criterion.weak.alone(
        {**batch, "valid": batch["has_class"]},
        (case.model.mask_size, case.model.mask_size),
        full_resolution=False,
    )
    weight = batch["valid"].float()
    with torch.no_grad():
        losses = [
            (criterion._masked_loss(case.logits(stage), targets, counted) * weight).sum()
            for stage in case.model(batch["images"])
        ]
    ours = 5 * torch.stack(losses).mean() / weight.sum()
    assert ours.item() == pytest.approx(float(case.io["loss::Loss/deep_mask_estimation"]), rel=1e-4)


def test_dice__is_the_originals(folder: Path) -> None:
    case = load(folder, "rel_dice")
    case.model.eval()
    batch = case.batch
    targets = original_mask_targets(case.masks, batch["boxes"], case.model.mask_size)
    weight = batch["valid"].float()
    with torch.no_grad():
        values = [dice(case.logits(stage), targets) for stage in case.model(batch["images"])]
    losses = [((value * weight).sum(1) / weight.sum(1)).mean() for value in values]
    ours = 5 * torch.stack(losses).mean()
    assert ours.item() == pytest.approx(float(case.io["loss::Loss/deep_mask_estimation"]), rel=1e-4)

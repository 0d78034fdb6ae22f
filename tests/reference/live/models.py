"""Small models beside the original's: from a checkpoint that TensorFlow wrote to the gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from criterion import batch_of, losses_of
from table import (
    Answer,
    Arrays,
    Dtype,
    Pair,
    as_the_original_in_float64,
    computing_in,
    convert_exactly,
    read,
    under,
)
from torch import Tensor, nn

from deepmac.convert import convert
from deepmac.convert.conversion import convert_model_variables
from deepmac.convert.settings import read_settings
from deepmac.models.files import build_model, load_model
from deepmac.nn.deepmac import DeepMAC
from deepmac.nn.stages import StageOutput
from deepmac.predict.letterbox import letterbox
from deepmac.predict.predictor import Predictor
from deepmac.protobuf.text_proto import parse_text_proto

HEADS = {
    "object_center": "heatmap",
    "box/scale": "size",
    "box/offset": "offset",
    "INSTANCE_EMBEDDING": "instance_embedding",
    "PIXEL_EMBEDDING": "pixel_embedding",
}
TIE = 1e-5


def answers(folder: Path, dtype: Dtype) -> Iterator[Answer]:
    for path in sorted(folder.glob("model_*.npz")):
        name = path.stem.removeprefix("model_")
        arrays = read(path)
        with computing_in(dtype):
            model = build(arrays, folder / f"export_{name}", dtype)
            part = f"model {name.replace('_', ' ')}"
            if name.startswith("fixture"):
                part = f"fixture {name.removeprefix('fixture_')}"
            if "image" in arrays:
                yield from inference(part, model, arrays)
                if dtype == "float32":
                    yield from predictor(part, model, arrays)
            if "images" in arrays:
                yield from training(part, model, arrays)
            if dtype == "float32":
                yield from restatement(part, arrays)


def build(arrays: Arrays, export: Path, dtype: Dtype) -> DeepMAC:
    """float32: what `deepmac convert` makes of the checkpoint; float64: the same variables."""
    if dtype == "float32" and export.is_dir():
        with TemporaryDirectory() as folder:
            report = convert(export, Path(folder) / "model")
            assert not report.missing and not report.unused, report
            model = load_model(Path(folder) / "model")
        assert model.conventions.compat == (
            "tf_release" if arrays["meta::release"] else "tf_latest"
        )
        return model
    settings = read_settings(parse_text_proto(str(arrays["meta::config"])))
    state, card, report = convert_model_variables(under(arrays, "w::"), settings, source="here")
    assert not report.unused, report
    model = build_model(card, source="here")
    model.load_state_dict(state)
    if dtype == "float32":
        return model.eval()
    as_the_original_in_float64(model)
    return model.double().eval()


def stages_of(model: DeepMAC, preprocessed: np.ndarray) -> list[StageOutput]:
    """From normalised pixels on: float64 starts from the original's float32 ones."""
    normalize, model.normalize = model.normalize, nn.Identity()
    try:
        pixels = torch.from_numpy(preprocessed).permute(0, 3, 1, 2).contiguous()
        pixels = pixels.to(next(model.parameters()))
        stages: list[StageOutput] = model(pixels)
        return stages
    finally:
        model.normalize = normalize


@torch.no_grad()
def inference(part: str, model: DeepMAC, arrays: Arrays) -> Iterator[Answer]:
    stages = stages_of(model, arrays["preprocessed"])
    pairs = [
        Pair(original_layout(stage, head), arrays[f"pred::{head}::{index}"])
        for index, stage in enumerate(stages)
        for head in HEADS
    ]
    yield Answer(part, "all heads' outputs", pairs)
    side = arrays["preprocessed"].shape[1]
    boxes = torch.from_numpy(arrays["boxes"])[..., [1, 0, 3, 2]].to(stages[0].size) * side
    pairs = [
        Pair(model.mask_logits(stage, boxes), arrays[f"mask_logits::{index}"])
        for index, stage in enumerate(stages)
    ]
    yield Answer(part, "mask logits of given boxes", pairs)
    found = model.detect(stages[-1])
    order = ranks(found.scores[0].double().numpy(), arrays["post::detection_scores"][0])
    if order is None:
        order = matched(found.boxes[0], found.labels[0], arrays)
    pair = Pair(found.scores[0], arrays["post::detection_scores"][0])
    yield Answer(part, "scores of detections", [pair], (1e-5, 1e-9), absolute=True)
    boxes = arrays["post::detection_boxes_strided"][0][order][:, [1, 0, 3, 2]] * model.stride
    pair = Pair(found.boxes[0], boxes)
    yield Answer(part, "boxes of detections, pixels", [pair], (1e-3, 1e-9), absolute=True)
    pair = Pair(found.labels[0], arrays["post::detection_classes"][0][order])
    yield Answer(part, "classes of detections", [pair], (0.0, 0.0), absolute=True)
    masks = model.mask_probabilities(stages[-1], found.boxes)[0]
    pair = Pair(masks, arrays["post::detection_masks"][0][order])
    # In float64 the original's enlargement, where it is not by four, has float32 weights.
    exact = 1e-7 if model.full_resolution and model.conventions.compat == "tf_latest" else 1e-9
    yield Answer(part, "probabilities in detected boxes", [pair], (1e-4, exact), absolute=True)


def ranks(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """The same order on both sides, unless scores come so close that rounding may swap them."""
    gaps = -np.diff(theirs)
    return np.arange(len(ours)) if (gaps > TIE).all() else None


def matched(boxes: Tensor, labels: Tensor, arrays: Arrays) -> np.ndarray:
    """For each of our detections the nearest of theirs that has its class."""
    theirs = torch.from_numpy(arrays["post::detection_boxes_strided"][0][:, [1, 0, 3, 2]] * 4)
    apart = (boxes[:, None].double() - theirs[None].double()).abs().amax(-1)
    other = labels[:, None] != torch.from_numpy(arrays["post::detection_classes"][0])[None]
    return (apart + 1e6 * other).argmin(1).numpy()


def predictor(part: str, model: DeepMAC, arrays: Arrays) -> Iterator[Answer]:
    """The way a user goes: a picture in, masks of boxes in its own pixels out."""
    predictor = Predictor(model)
    image = arrays["image"]
    entry = letterbox(image, predictor.image_size, model.conventions).image
    pair = Pair(model.normalize(entry).permute(0, 2, 3, 1), arrays["preprocessed"])
    yield Answer(part, "pixels, resized and normalised", [pair], (1e-5, None), absolute=True)
    predictor.set_image(image)
    height, width = image.shape[:2]
    boxes = arrays["boxes"][0][:, [1, 0, 3, 2]].astype(np.float64) * [width, height, width, height]
    pair = Pair(predictor.predict_crops(boxes), arrays["given::masks"][0])
    # Norms are folded here, so that rounding differs. In float32 this fixture's original is 1.6e-4
    # from its own float64 (see "probabilities in detected boxes"), whose answer ours are nearer to.
    asked = (3e-4, None) if part == "fixture rel_tiny2" else (1e-4, None)
    yield Answer(part, "Predictor: probabilities in given boxes", [pair], asked, absolute=True)


def training(part: str, model: DeepMAC, arrays: Arrays) -> Iterator[Answer]:
    batch, masks = batch_of(arrays, model)
    with torch.no_grad():
        stages = stages_of(model.eval(), arrays["batch_preprocessed"])
        losses = losses_of(model, stages, batch, masks, arrays)
    yield Answer(part, "losses, evaluation", pairs_of(losses, under(arrays, "loss::Loss/")))
    model.train().zero_grad()
    stages = stages_of(model, arrays["batch_preprocessed"])
    losses = losses_of(model, stages, batch, masks, arrays)
    torch.stack(list(losses.values())).sum().backward()
    yield Answer(part, "losses, training", pairs_of(losses, under(arrays, "train_loss::Loss/")))
    theirs = convert_exactly(under(arrays, "grad::"))
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    # A bias before a norm has a gradient of nothing but rounding.
    least = 1e-5 * max(float(grad.norm()) for grad in theirs.values())
    kept = [name for name in ours if theirs[name].norm() > least]
    pairs = [Pair(ours[name].norm(), theirs[name].norm()) for name in kept]
    yield Answer(part, "gradient norms", pairs, (1e-3, 1e-9))
    pairs = [Pair(ours[name], theirs[name]) for name in kept]
    yield Answer(part, "gradients", pairs, (None, 1e-9))
    after = convert_exactly(under(arrays, "w::") | under(arrays, "after::"))
    for where in ("backbone", "mask head"):
        pairs = [
            Pair(value, after[name])
            for name, value in model.named_buffers()
            if "running" in name and name.startswith(where.replace(" ", "_"))
        ]
        if pairs:
            same = not (where == "mask head" and "resnet" in part)
            quantity = f"running statistics after a step, {where}"
            yield Answer(part, quantity, pairs, (1e-6, 1e-9), comparable=same)


def restatement(part: str, arrays: Arrays) -> Iterator[Answer]:
    """The original as run here beside the numbers that its first code itself left."""
    stored = under(arrays, "stored::")
    if stored:
        pairs = [Pair(arrays[key], value) for key, value in stored.items() if "loss::" in key]
        yield Answer(part, "original here and stored: losses", pairs, (1e-5, None))
        norms = under(stored, "gradnorm::")
        pairs = [Pair(np.linalg.norm(arrays[f"grad::{k}"]), value) for k, value in norms.items()]
        yield Answer(part, "original here and stored: gradient norms", pairs, (None, None))


def pairs_of(ours: dict[str, Tensor], theirs: Arrays) -> list[Pair]:
    assert ours.keys() == theirs.keys(), f"{sorted(ours)} are not {sorted(theirs)}"
    return [Pair(value, theirs[name]) for name, value in ours.items()]


def original_layout(stage: StageOutput, head: str) -> np.ndarray:
    values = getattr(stage, HEADS[head])
    values = values.permute(0, 2, 3, 1).numpy()
    return values[..., ::-1].copy() if head.startswith("box/") else values

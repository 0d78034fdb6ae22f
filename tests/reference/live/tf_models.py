"""What small models of the original answer: predictions, detections, losses, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from object_detection.utils import shape_utils
from tf_network import Arrays, build_model, fill, values_of, variables_of

CONFIG = """center_net {{
  num_classes: {classes}
  feature_extractor {{
    type: "{backbone}" bgr_ordering: true
    channel_means: [104.01362025, 114.03422265, 119.9165958]
    channel_stds: [73.6027665, 69.89082075, 70.9150767] }}
  image_resizer {{ keep_aspect_ratio_resizer {{
    min_dimension: {side} max_dimension: {side} pad_to_max_dimension: true }} }}
  object_detection_task {{
    task_loss_weight: 1.0 offset_loss_weight: 1.0 scale_loss_weight: 0.1
    localization_loss {{ l1_localization_loss {{ }} }} }}
  object_center_params {{
    object_center_loss_weight: 1.0 min_box_overlap_iou: 0.7 max_box_predictions: 20
    classification_loss {{ penalty_reduced_logistic_focal_loss {{ alpha: 2.0 beta: 4.0 }} }} }}
  deepmac_mask_estimation {{
    classification_loss {{ weighted_sigmoid {{}} }}
    task_loss_weight: 5.0 {masks} }} }}"""
FULL_RESOLUTION = "predict_full_resolution_masks: true postprocess_crop_size: 40 "
OBJECTS, POINTS = 6, 5


class Case(NamedTuple):
    """One model; ``rows`` of its batch are ground truth, the rest padding."""

    name: str
    backbone: str
    side: int
    masks: str
    release: bool = False
    classes: int = 7

    @property
    def config(self) -> str:
        return CONFIG.format(**self._asdict())


CASES = (
    Case(
        "newest_two_stacks", "hourglass_tiny2", 96,
        'network_type: "hourglass20" dim: 12 pixel_embedding_dim: 9 mask_size: 16 '
        "num_init_channels: 8 box_consistency_loss_weight: 2.0",
    ),
    Case(
        "newest_resnet_head", "hourglass_10", 128,
        'network_type: "resnet8" dim: 20 pixel_embedding_dim: 7 mask_size: 24 '
        "num_init_channels: 8 allowed_masked_classes_ids: [1, 3, 4]",
    ),
    Case(
        "newest_full_resolution", "hourglass_tiny2", 64,
        'network_type: "cond_inst3" dim: 169 pixel_embedding_dim: 8 num_init_channels: 8 '
        f"use_instance_embedding: false {FULL_RESOLUTION}"
        "box_consistency_loss_weight: 1.5 color_consistency_loss_weight: 1.0 "
        "pointly_supervised_keypoint_loss_weight: 3.0",
    ),
    Case(
        "release_two_stacks", "hourglass_tiny2", 128,
        'network_type: "hourglass10" dim: 14 pixel_embedding_dim: 6 mask_size: 32 '
        "num_init_channels: 8 allowed_masked_classes_ids: [2, 3, 5, 6]",
        release=True,
    ),
    Case(
        "release_full_resolution", "hourglass_tiny2", 96,
        'network_type: "hourglass10" dim: 10 pixel_embedding_dim: 6 num_init_channels: 8 '
        f"{FULL_RESOLUTION}",
        release=True,
    ),
)  # fmt: skip


def cases(seed: int, dtype: str, folder: Path) -> Iterator[tuple[str, Arrays]]:
    for case in CASES:
        yield f"model_{case.name}", whole_model(case, seed, dtype, folder)


def whole_model(case: Case, seed: int, dtype: str, folder: Path) -> Arrays:
    model = build_model(case.config, release=case.release)
    arrays = inputs(case, model, seed, dtype, folder)
    pre = tf.constant(arrays["preprocessed"].astype(dtype))
    shapes = tf.constant(arrays["true_shapes"])
    tf.keras.backend.set_learning_phase(0)
    make_variables(model, pre, shapes, arrays["boxes"].astype(dtype))
    variables = variables_of(model=model)
    if dtype == "float32":
        fill(variables, seed)
        settle(model, arrays)
    else:
        fill(variables, seed, given=saved_by_float32(case, folder, "w::"))
    arrays |= values_of(variables, "w::")
    if dtype == "float32":
        export(model, case, folder / f"export_{case.name}")
    arrays |= inference(model, pre, shapes, arrays["boxes"].astype(dtype))
    return arrays | training(model, variables, arrays, dtype)


def make_variables(model: Any, pre: tf.Tensor, shapes: Any, boxes: np.ndarray) -> None:
    """By a forward pass; not over detections, which may lie where the original fails."""
    predicted = model.predict(pre, shapes)
    model._predict_mask_logits_from_boxes(predicted, tf.constant(boxes))


def inputs(case: Case, model: Any, seed: int, dtype: str, folder: Path) -> Arrays:
    """Pictures and ground truth; float64 starts from the pixels that float32 resized."""
    if dtype == "float64":
        saved = saved_by_float32(case, folder, "")
        kept = ["image", "images", "boxes", "preprocessed", "true_shapes"]
        kept += ["batch_preprocessed", "batch_shapes"]
        kept += [key for key in saved if key.startswith(("gt::", "meta::"))]
        return {name: saved[name] for name in kept}
    random = np.random.default_rng([seed, case.side, len(case.name)])
    height, width = random.integers(case.side // 2, 2 * case.side, 2)
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    resized, true_shapes = shape_utils.resize_images_and_return_shapes(
        tf.constant(image[None].astype(np.float32)), model._image_resizer_fn
    )
    images = random.integers(0, 256, (2, case.side, case.side, 3)).astype(np.uint8)
    shapes = np.array([[case.side, case.side, 3], [case.side * 3 // 4, case.side, 3]], np.int32)
    images[1, shapes[1, 0] :] = 0
    return {
        "meta::config": np.array(case.config),
        "meta::release": np.array(case.release),
        "image": image,
        "boxes": random_boxes(random, 5)[None],
        "preprocessed": model._feature_extractor.preprocess(resized).numpy(),
        "true_shapes": true_shapes.numpy(),
        "images": images,
        "batch_preprocessed": model._feature_extractor.preprocess(
            tf.constant(images.astype(np.float32))
        ).numpy(),
        "batch_shapes": shapes,
        **ground_truth(case, random),
    }


def saved_by_float32(case: Case, folder: Path, prefix: str) -> Arrays:
    with np.load(folder.parent / "float32" / f"model_{case.name}.npz") as saved:
        keys = [key for key in saved.files if key.startswith(prefix)]
        return {key.removeprefix(prefix): saved[key] for key in keys}


def settle(model: Any, arrays: Arrays) -> None:
    """Running statistics of the batch, as in a trained network: random ones let outputs grow."""
    tf.keras.backend.set_learning_phase(1)
    shapes = tf.constant(arrays["batch_shapes"])
    predicted = model.predict(tf.constant(arrays["batch_preprocessed"]), shapes)
    model._predict_mask_logits_from_boxes(predicted, tf.constant(arrays["gt::boxes"]))
    tf.keras.backend.set_learning_phase(0)


def ground_truth(case: Case, random: np.random.Generator) -> Arrays:
    """Of two images; the second has padding rows, and lies in the upper three quarters."""
    boxes = np.stack([random_boxes(random, OBJECTS) for _ in range(2)])
    boxes[1, :, [0, 2]] *= 0.75
    weights = np.ones((2, OBJECTS), np.float32)
    weights[1, 4:] = 0
    boxes[1, 4:] = 0
    labels = random.integers(0, case.classes, (2, OBJECTS))
    classes = np.eye(case.classes, dtype=np.float32)[labels] * weights[..., None]
    places = (np.arange(case.side, dtype=np.float32) + 0.5) / case.side
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    half = np.maximum(half, 1e-3)
    y = (places - centre[..., :1]) / half[..., :1]
    x = (places - centre[..., 1:]) / half[..., 1:]
    masks = (y[..., :, None] ** 2 + x[..., None, :] ** 2 < 1).astype(np.float32)
    truth = {
        "gt::boxes": boxes,
        "gt::classes": classes,
        "gt::weights": weights,
        "gt::masks": masks * weights[..., None, None],
    }
    if "pointly_supervised" not in case.masks:
        return truth
    points = random.uniform(0.02, 0.98, (2, OBJECTS, POINTS, 2)).astype(np.float32)
    points[0, 0, 2] = np.nan
    return truth | {
        "gt::keypoints": points,
        "gt::keypoint_depths": random.choice([-1, 1], points.shape[:3]).astype(np.float32),
    }


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """Normalised (y0, x0, y1, x1) with sides of a tenth of the picture at least."""
    start = random.uniform(0, 0.6, (count, 2))
    side = np.minimum(random.uniform(0.1, 0.6, (count, 2)), 1 - start)
    return np.concatenate([start, start + side], axis=1).astype(np.float32)


def inference(model: Any, pre: tf.Tensor, shapes: tf.Tensor, boxes: np.ndarray) -> Arrays:
    predicted = model.predict(pre, shapes)
    arrays = {
        f"pred::{head}::{stage}": value.numpy()
        for head, stages in predicted.items()
        if isinstance(stages, list)
        for stage, value in enumerate(stages)
    }
    given = tf.constant(boxes)
    for stage, logits in enumerate(model._predict_mask_logits_from_boxes(predicted, given)):
        arrays[f"mask_logits::{stage}"] = logits.numpy()
    found = model.postprocess(predicted, shapes)
    arrays |= {f"post::{name}": value.numpy() for name, value in found.items()}
    of_given = model.predict_masks_from_boxes(predicted, shapes, given)
    return arrays | {"given::masks": of_given["detection_masks"].numpy()}


def training(model: Any, variables: dict[str, tf.Variable], arrays: Arrays, dtype: str) -> Arrays:
    """Losses of an evaluation, then those and the gradients of one training step."""
    pre = tf.constant(arrays["batch_preprocessed"].astype(dtype))
    shapes = tf.constant(arrays["batch_shapes"])
    provide_ground_truth(model, arrays, dtype)
    losses = model.loss(model.predict(pre, shapes), shapes)
    answer = {f"loss::{name}": value.numpy() for name, value in losses.items()}
    tf.keras.backend.set_learning_phase(1)
    trained = {key: v for key, v in variables.items() if "moving_" not in key}
    with tf.GradientTape() as tape:
        losses = model.loss(model.predict(pre, shapes), shapes)
        total = tf.add_n(list(losses.values()))
    gradients = tape.gradient(total, list(trained.values()))
    tf.keras.backend.set_learning_phase(0)
    answer |= {f"train_loss::{name}": value.numpy() for name, value in losses.items()}
    for key, gradient in zip(trained, gradients, strict=True):
        if gradient is not None:
            answer[f"grad::{key}"] = gradient.numpy()
    return answer | values_of(variables, "after::", only="moving_")


def provide_ground_truth(model: Any, arrays: Arrays, dtype: str) -> None:
    names = [name.removeprefix("gt::") for name in arrays if name.startswith("gt::")]
    rows = {
        name: [tf.constant(row.astype(dtype)) for row in arrays[f"gt::{name}"]] for name in names
    }
    model.provide_groundtruth(**{f"groundtruth_{name}_list": rows[name] for name in names})


def export(model: Any, case: Case, folder: Path) -> None:
    """Laid out as the published archive is."""
    tf.train.Checkpoint(model=model).save(str(folder / "checkpoint" / "ckpt"))
    (folder / "pipeline.config").write_text(f"model {{ {case.config} }}\n")

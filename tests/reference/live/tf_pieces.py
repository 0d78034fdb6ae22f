"""What single functions of the original answer: targets, crop, schedule, Adam, augmentations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import optimizer_builder
from object_detection.core import preprocessor, target_assigner
from object_detection.protos import optimizer_pb2
from object_detection.utils import spatial_transform_ops
from tf_models import random_boxes
from tf_network import Arrays

OPTIMIZER = """use_moving_average: false adam_optimizer { epsilon: 1e-7
  learning_rate { cosine_decay_learning_rate { learning_rate_base: 1e-3 total_steps: 50000
    warmup_learning_rate: 2.5e-4 warmup_steps: 5000 } } }"""
CROPS = 12


def cases(seed: int, dtype: str) -> Iterator[tuple[str, Arrays]]:
    yield "crop", crop(seed, dtype)
    yield "adam", adam(seed, dtype)
    if dtype == "float32":  # pictures and targets are float32 wherever they come from
        yield "targets", targets(seed)
        yield "schedule", schedule()
        yield "colors", colors(seed)
        yield "square_crops", square_crops(seed)


def targets(seed: int) -> Arrays:
    random = np.random.default_rng([seed, 101])
    height, width = (int(side) * 32 for side in random.integers(3, 9, 2))
    boxes = random_boxes(random, 12)
    boxes[7, 2:] = boxes[7, :2] + np.float32(1e-4)  # far below a cell
    classes = np.eye(5, dtype=np.float32)[random.integers(0, 5, 12)]
    weights = (np.arange(12) != 5).astype(np.float32)
    rows = [tf.constant(boxes)], [tf.constant(classes)], [tf.constant(weights)]
    heatmap = target_assigner.CenterNetCenterHeatmapTargetAssigner(stride=4, min_overlap=0.7)
    boxes_of = target_assigner.CenterNetBoxTargetAssigner(stride=4)
    drawn = heatmap.assign_center_targets_from_boxes(height, width, *rows)
    cells, sizes, offsets, _ = boxes_of.assign_size_and_offset_targets(
        height, width, rows[0], rows[2]
    )
    return {
        "size": np.array([height, width]),
        "boxes": boxes,
        "labels": classes.argmax(1),
        "weights": weights,
        "heatmap": drawn.numpy()[0],
        "cells": cells.numpy(),
        "sizes": sizes.numpy(),
        "offsets": offsets.numpy(),
    }


def crop(seed: int, dtype: str) -> Arrays:
    random = np.random.default_rng([seed, 102])
    features = random.normal(0, 1, (2, 19, 27, 4)).astype(np.float32)
    boxes = np.stack([random_boxes(random, 8) for _ in range(2)])
    boxes[0, 0] += np.float32(0.4)  # partly outside
    boxes[1, 1] = boxes[1, 1, [2, 3, 0, 1]]  # inverted
    boxes[1, 2] = [0, 0, 1, 1]
    cells = [int(side) for side in random.integers(2, 33, 2)]
    answer = spatial_transform_ops.matmul_crop_and_resize(
        tf.constant(features.astype(dtype)), tf.constant(boxes.astype(dtype)), cells
    )
    return {
        "features": features, "boxes": boxes, "cells": np.array(cells), "crops": answer.numpy()
    }  # fmt: skip


def adam(seed: int, dtype: str) -> Arrays:
    """Ten steps of the official optimizer, the learning rate with them."""
    random = np.random.default_rng([seed, 103])
    start = np.zeros(50, np.float32)
    # From far above to far below epsilon, where its place shows.
    scale = np.logspace(-9, 1, 50).astype(np.float32)
    gradients = (random.normal(0, 1, (10, 50)) * scale).astype(np.float32)
    proto = optimizer_pb2.Optimizer()
    text_format.Parse(OPTIMIZER, proto)
    count = tf.Variable(4995, dtype=tf.int64)  # over the end of the warm-up
    optimizer, (rate,) = optimizer_builder.build(proto, global_step=count)
    variable = tf.Variable(start.astype(dtype))
    steps, rates = [], []
    for gradient in gradients:
        rates.append(_value(rate))
        optimizer.apply_gradients([(tf.constant(gradient.astype(dtype)), variable)])
        count.assign_add(1)
        steps.append(variable.numpy())
    return {
        "start": start, "gradients": gradients, "steps": np.stack(steps), "rates": np.array(rates)
    }  # fmt: skip


def schedule() -> Arrays:
    steps = np.array([0, 1, 100, 2500, 4999, 5000, 5001, 12345, 25000, 49999, 50000])
    proto = optimizer_pb2.Optimizer()
    text_format.Parse(OPTIMIZER, proto)
    rates = []
    for step in steps:
        _, summary = optimizer_builder.build(proto, global_step=tf.constant(step, dtype=tf.int64))
        rates.append(_value(summary[0]))
    return {"steps": steps, "rates": np.array(rates)}


def colors(seed: int) -> Arrays:
    """Each operation with draws that it made itself, as found out by listening."""
    random = np.random.default_rng([seed, 104])
    image = random.uniform(0, 255, (31, 45, 3)).astype(np.float32)
    arrays: Arrays = {"image": image}
    operations: dict[str, Callable[..., Any]] = {
        "hue": preprocessor.random_adjust_hue,
        "contrast": preprocessor.random_adjust_contrast,
        "saturation": preprocessor.random_adjust_saturation,
        "brightness": preprocessor.random_adjust_brightness,
    }
    for name, operation in operations.items():
        for draw in range(3):
            answer, drawn = _listen(lambda run=operation: run(tf.constant(image)))
            arrays[f"{name}::{draw}"] = answer.numpy()
            arrays[f"{name}_drawn::{draw}"] = np.array(drawn[-1])
    return arrays


def square_crops(seed: int) -> Arrays:
    random = np.random.default_rng([seed, 105])
    height, width = (int(side) for side in random.integers(30, 300, 2))
    image = random.uniform(0, 255, (height, width, 3)).astype(np.float32)
    boxes = random_boxes(random, 5)
    masks = (random.uniform(0, 1, (5, height, width)) > 0.5).astype(np.float32)
    arrays: Arrays = {"image": image, "boxes": boxes, "masks": masks}
    for draw in range(CROPS):
        answer, drawn = _listen(
            lambda: preprocessor.random_square_crop_by_scale(
                tf.constant(image), tf.constant(boxes), tf.range(5), tf.ones(5),
                masks=tf.constant(masks), scale_min=0.6, scale_max=1.3, num_scales=8,
                max_border=128,
            )
        )  # fmt: skip
        for name, value in zip(
            ("image", "boxes", "labels", "weights", "masks"), answer, strict=False
        ):
            arrays[f"{name}::{draw}"] = value.numpy()
        arrays[f"drawn::{draw}"] = np.array([int(value) for value in drawn])
    return arrays


def _listen(run: Callable[[], Any]) -> tuple[Any, list[float]]:
    """What ``run`` returns, and the random numbers that the preprocessor drew for it."""
    drawn: list[float] = []
    plain = preprocessor.tf

    class Listening:
        def __getattr__(self, name: str) -> Any:
            value = getattr(plain, name)
            if name != "random_uniform":
                return value

            def heard(*args: Any, **named: Any) -> Any:
                number = value(*args, **named)
                drawn.append(float(number))
                return number

            return heard

    with mock.patch.object(preprocessor, "tf", Listening()):
        return run(), drawn


def _value(rate: Any) -> float:
    rate = rate() if callable(rate) else rate
    return float(rate.numpy() if hasattr(rate, "numpy") else rate)

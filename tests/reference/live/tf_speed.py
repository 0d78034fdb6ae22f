"""The TensorFlow original, one run for each line of its input. Runs in its own environment.

``tf_speed.py inference|step BACKBONE MASK_HEAD SIZE BOXES``; answers ``done`` to each line.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import tensorflow as tf
import tf_setup


def main() -> None:
    job, backbone, head, size, count = sys.argv[1:]
    tf_setup.set_up(0, "float32")
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from tf_models import CONFIG
    from tf_network import build_model

    masks = (
        f'network_type: "{head}" dim: 32 pixel_embedding_dim: 16 mask_size: 32 '
        "num_init_channels: 64"
    )
    config = CONFIG.format(classes=90, backbone=backbone, side=int(size), masks=masks)
    model = build_model(config, release=False)
    run = {"inference": inference, "step": step}[job](model, int(size), int(count))
    for _ in sys.stdin:
        run()
        print("done", flush=True)


def inputs(size: int, count: int):
    random = np.random.default_rng(0)
    pixels = random.normal(size=(1, size, size, 3)).astype(np.float32)
    start = random.uniform(0, 0.6, (1, count, 2))
    boxes = np.concatenate([start, start + random.uniform(0.1, 0.4, start.shape)], axis=2)
    shapes = tf.constant([[size, size, 3]], tf.int32)
    return tf.constant(pixels), shapes, tf.constant(boxes.astype(np.float32))


def inference(model, size: int, count: int):
    pixels, shapes, boxes = inputs(size, count)
    tf.keras.backend.set_learning_phase(0)

    @tf.function
    def run(pixels: Any, boxes: Any) -> Any:
        predicted = model.predict(pixels, shapes)
        return model.predict_masks_from_boxes(predicted, shapes, boxes)["detection_masks"]

    return lambda: run(pixels, boxes).numpy()


def step(model, size: int, count: int):
    pixels, shapes, boxes = inputs(size, count)
    tf.keras.backend.set_learning_phase(1)
    classes = np.eye(90, dtype=np.float32)[np.arange(count) % 90]
    masks = np.zeros((count, size, size), np.float32)
    for mask, (y0, x0, y1, x1) in zip(masks, (boxes.numpy()[0] * size).astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    model.provide_groundtruth(
        groundtruth_boxes_list=[boxes[0]],
        groundtruth_classes_list=[tf.constant(classes)],
        groundtruth_weights_list=[tf.ones([count])],
        groundtruth_masks_list=[tf.constant(masks)],
    )
    optimizer = tf.keras.optimizers.legacy.Adam(1e-3, epsilon=1e-7)
    model.loss(model.predict(pixels, shapes), shapes)  # makes the variables

    @tf.function
    def run(pixels: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = model.loss(model.predict(pixels, shapes), shapes)
            total = tf.add_n(list(losses.values()))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        return total

    return lambda: run(pixels).numpy()


if __name__ == "__main__":
    main()

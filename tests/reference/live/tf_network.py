"""Mask heads and whole models of the original, with weights that follow from a seed."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import model_builder
from object_detection.core import standard_fields as fields
from object_detection.meta_architectures import center_net_meta_arch as center_net
from object_detection.meta_architectures import deepmac_meta_arch as deepmac
from object_detection.models import center_net_hourglass_feature_extractor as extractors
from object_detection.models.keras_models import hourglass_network
from object_detection.protos import model_pb2
from tensorflow.python.checkpoint import graph_view

Arrays = dict[str, np.ndarray]


def hourglass_tiny2(channel_means: Any, channel_stds: Any, bgr_ordering: Any, **_: Any) -> Any:
    """Two small stacks, to see what the official network has and the smaller ones lack."""
    network = hourglass_network.HourglassNetwork(
        num_stages=2,
        input_channel_dims=8,
        channel_dims_per_stage=[16, 16, 24],
        blocks_per_stage=[1, 2, 2],
        num_hourglasses=2,
    )
    return extractors.CenterNetHourglassFeatureExtractor(
        network, channel_means=channel_means, channel_stds=channel_stds, bgr_ordering=bgr_ordering
    )


class ReleasedDeepMAC(deepmac.DeepMACMetaArch):
    """What the first published code (2021) did otherwise, restated on the newest.

    That it is restated rightly shows in the fixtures that the first code itself gave.
    """

    def _get_mask_head_input(self, boxes: Any, pixel_embedding: Any) -> Any:
        inputs = super()._get_mask_head_input(boxes, pixel_embedding)
        params = self._deepmac_params
        if not (params.predict_full_resolution_masks and params.use_xy):
            return inputs
        axes = [
            tf.linspace(tf.constant(-1, inputs.dtype), tf.constant(1, inputs.dtype), side)
            for side in inputs.shape[2:4]
        ]
        place = tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1)
        place = tf.broadcast_to(place, [*inputs.shape[:4], 2])
        return tf.concat([place, inputs[..., 2:]], axis=4)

    def _predict_mask_logits_from_gt_boxes(self, prediction_dict: Any) -> Any:
        boxes = self.groundtruth_lists(fields.BoxListFields.boxes)
        stages = []
        for embeddings in zip(
            prediction_dict[deepmac.PIXEL_EMBEDDING],
            prediction_dict[deepmac.INSTANCE_EMBEDDING],
            strict=True,
        ):
            images = [
                self._predict_mask_logits_from_embeddings(
                    embeddings[0][i : i + 1], embeddings[1][i : i + 1], boxes[i][None]
                )
                for i in range(len(boxes))
            ]
            stages.append(tf.concat(images, axis=0))
        return stages

    def _postprocess_masks(self, boxes_output_stride: Any, instance: Any, pixel: Any) -> Any:
        params = self._deepmac_params
        if not params.predict_full_resolution_masks:
            return super()._postprocess_masks(boxes_output_stride, instance, pixel)
        height, width = instance.shape[1:3]
        boxes = deepmac.boxes_batch_absolute_to_normalized_coordinates(
            boxes_output_stride, height, width
        )
        logits = self._predict_mask_logits_from_embeddings(pixel, instance, boxes)
        size = (height * self._stride, width * self._stride)
        large = deepmac.resize_instance_masks(logits, size)
        crops = deepmac.crop_and_resize_instance_masks(large, boxes, params.postprocess_crop_size)
        return tf.nn.sigmoid(crops)

    def _compute_masks_loss(self, prediction_dict: Any) -> Any:
        everything = {name: self._groundtruth_lists[name] for name in self._groundtruth_lists}
        total = dict.fromkeys(deepmac.MASK_LOSSES, 0.0)
        count = len(everything[fields.BoxListFields.boxes])
        logits = prediction_dict[deepmac.MASK_LOGITS_GT_BOXES]
        for i in range(count):
            one = dict(prediction_dict)
            one["preprocessed_inputs"] = prediction_dict["preprocessed_inputs"][i : i + 1]
            one[deepmac.MASK_LOGITS_GT_BOXES] = [stage[i : i + 1] for stage in logits]
            self._groundtruth_lists = {name: [rows[i]] for name, rows in everything.items()}
            for name, value in super()._compute_masks_loss(one).items():
                total[name] += value / count
        self._groundtruth_lists = everything
        return total


def build_model(config: str, *, release: bool) -> Any:
    proto = model_pb2.DetectionModel()
    text_format.Parse(config, proto)
    model_builder.CENTER_NET_EXTRACTOR_FUNCTION_MAP["hourglass_tiny2"] = hourglass_tiny2
    if not release:
        return model_builder.build(proto, is_training=True)
    newest = center_net.make_prediction_net

    def square(*args: Any, **named: Any) -> Any:
        return newest(*args, **{**named, "unit_height_conv": False})

    center_net.make_prediction_net = square
    try:
        model = model_builder.build(proto, is_training=True)
    finally:
        center_net.make_prediction_net = newest
    # The constructor names its own class, so a subclass could not be built in its place.
    object.__setattr__(model, "__class__", ReleasedDeepMAC)
    return model


def variables_of(**roots: Any) -> dict[str, tf.Variable]:
    """Every float variable by its key in a checkpoint of ``roots``."""
    checkpoint = tf.train.Checkpoint(**roots)
    found, paths = graph_view.ObjectGraphView(checkpoint).breadth_first_traversal()
    return {
        "/".join(part.name.replace(".", "..").replace("/", ".S") for part in paths[item]): item
        for item in found
        if isinstance(item, tf.Variable) and item.dtype.is_floating
    }


def fill(variables: dict[str, tf.Variable], seed: int, given: Arrays | None = None) -> None:
    """Give every variable a float32 number, which float64 holds too."""
    for key, variable in variables.items():
        if given is not None:
            variable.assign(given[key].astype(variable.dtype.as_numpy_dtype))
            continue
        random = np.random.default_rng([seed, zlib.crc32(key.encode())])
        values = _drawn(key, tuple(variable.shape), random).astype(np.float32)
        variable.assign(values.astype(variable.dtype.as_numpy_dtype))


def values_of(variables: dict[str, tf.Variable], prefix: str, only: str = "") -> Arrays:
    return {f"{prefix}{key}": v.numpy() for key, v in variables.items() if only in key}


def _drawn(key: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    leaf = key.rpartition("/")[2]
    if leaf == "kernel":
        spread = np.sqrt(2 / np.prod(shape[:-1]))
        if "layer_with_weights-1" in key:  # or scores saturate and boxes are empty
            spread *= 0.02 if "box.S" in key else 0.2
        return random.normal(0, spread, shape)
    if leaf == "bias" and "layer_with_weights-1" in key:
        centre = {"object_center": -2.0, "box.Sscale": 6.0, "box.Soffset": 0.5}
        for head, value in centre.items():
            if f"/{head}/" in key:
                return value + random.normal(0, 0.2, shape)
    ranges = {"gamma": (0.6, 1.4), "moving_variance": (0.5, 1.5)}
    return random.uniform(*ranges.get(leaf, (-0.3, 0.3)), shape)

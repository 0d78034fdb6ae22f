"""The original on inputs of the stored fixtures, to get in float64 what they hold in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from object_detection.meta_architectures import deepmac_meta_arch as deepmac
from tf_heads import answer
from tf_models import inference, make_variables, training
from tf_network import Arrays, build_model, fill, values_of, variables_of

HEADS = ("hourglass52", "hourglass100")
MODELS = ("rel_tiny2", "tiny2")
LOSSES = ("rel_all_classes", "rel_voc_like", "rel_fullres")


def cases(fixtures: Path, dtype: str) -> Iterator[tuple[str, Arrays]]:
    for name in HEADS:
        yield f"head_fixture_{name}", mask_head(read(fixtures / "heads" / f"{name}.npz"), dtype)
    for name in MODELS:
        io = read(fixtures / "model" / f"{name}_io.npz")
        weights = read(fixtures / "model" / f"{name}_weights.npz")
        yield f"model_fixture_{name}", model(io, weights, name, dtype)
    for name in LOSSES:
        io = read(fixtures / "losses" / f"{name}.npz")
        weights = read(fixtures / "losses" / "weights_rel_hourglass10.npz")
        yield f"model_fixture_{name}", losses(io, weights | io, name, dtype)


def mask_head(io: Arrays, dtype: str) -> Arrays:
    meta = json.loads(str(io["meta"]))
    head = deepmac.MaskHeadNetwork(
        network_type=meta["network_type"],
        num_init_channels=meta["num_init_channels"],
        use_instance_embedding=True,
        mask_size=meta["mask_size"],
    )
    meta = {"name": meta["network_type"], "width": meta["num_init_channels"]}
    meta |= {"side": io["pixel_embedding"].shape[1], "joins": True}
    arrays = {"pixel": io["pixel_embedding"], "instance": io["instance_embedding"]}
    given = weights_of(io)
    arrays |= answer(head, arrays, dtype, lambda variables: fill(variables, 0, given))
    return arrays | {"meta": np.array(json.dumps(meta))}


def model(io: Arrays, weights: Arrays, name: str, dtype: str) -> Arrays:
    built, arrays = built_from(io, name)
    shapes = tf.constant(io["true_image_shapes"])
    arrays["image"], arrays["boxes"] = io["image"], io["boxes"]
    arrays["preprocessed"], arrays["true_shapes"] = io["pred::preprocessed_inputs"], shapes.numpy()
    pre = tf.constant(arrays["preprocessed"].astype(dtype))
    tf.keras.backend.set_learning_phase(0)
    make_variables(built, pre, shapes, io["boxes"].astype(dtype))
    variables = variables_of(model=built)
    fill(variables, 0, weights_of(weights))
    arrays |= values_of(variables, "w::")
    return arrays | inference(built, pre, shapes, io["boxes"].astype(dtype))


def losses(io: Arrays, weights: Arrays, name: str, dtype: str) -> Arrays:
    built, arrays = built_from(io, name)
    arrays["images"], arrays["batch_shapes"] = io["images"], io["true_image_shapes"]
    arrays |= {
        key: value for key, value in io.items() if key.startswith("gt::") and "key" not in key
    }
    pixels = built._feature_extractor.preprocess(tf.constant(io["images"].astype(dtype)))
    arrays["batch_preprocessed"] = pixels.numpy().astype(np.float32)
    pre, shapes = tf.constant(arrays["batch_preprocessed"].astype(dtype)), io["true_image_shapes"]
    tf.keras.backend.set_learning_phase(0)
    make_variables(built, pre, shapes, io["gt::boxes"].astype(dtype))
    variables = variables_of(model=built)
    fill(variables, 0, weights_of(weights))
    arrays |= values_of(variables, "w::")
    answers = training(built, variables, arrays, dtype)
    stored = {f"stored::{k}": v for k, v in io.items() if k.startswith(("loss::", "train_loss::"))}
    norms = {k: v for k, v in io.items() if k.startswith("gradnorm::")}
    return arrays | answers | stored | {f"stored::{key}": value for key, value in norms.items()}


def built_from(io: Arrays, name: str) -> tuple[Any, Arrays]:
    release = name.startswith("rel")
    config = str(io["config"])
    arrays = {"meta::config": np.array(config), "meta::release": np.array(release)}
    return build_model(config, release=release), arrays


def weights_of(arrays: Arrays) -> Arrays:
    return {key.removeprefix("w::"): v for key, v in arrays.items() if key.startswith("w::")}


def read(path: Path) -> Arrays:
    with np.load(path) as arrays:
        return dict(arrays)

"""What the original's seventeen mask heads answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from object_detection.meta_architectures import deepmac_meta_arch as deepmac
from tf_network import Arrays, fill, values_of, variables_of

HEADS = (
    *("hourglass10", "hourglass20", "hourglass32", "hourglass52", "hourglass100"),
    *("hourglass20_uniform_size", "hourglass20_no_shortcut"),
    *("resnet4", "resnet8", "resnet12", "resnet16", "resnet20"),
    *("fully_connected", "embedding_projection", "cond_inst1", "cond_inst2", "cond_inst3"),
)
ROWS = 16


def cases(seed: int, dtype: str) -> Iterator[tuple[str, Arrays]]:
    for name in HEADS:
        yield f"head_{name}", mask_head(name, seed, dtype)


def mask_head(name: str, seed: int, dtype: str) -> Arrays:
    random = np.random.default_rng([seed, HEADS.index(name)])
    side = int(random.choice([16, 24, 40]))
    if name in ("hourglass52", "hourglass100"):
        side = 32  # these halve five times
    if name == "fully_connected":
        side = 16
    pixel_channels, dim, width = int(random.integers(6, 12)), int(random.integers(5, 20)), 8
    joins = not name.startswith(("cond_inst", "embedding"))
    if name == "embedding_projection":
        dim = pixel_channels
    elif name.startswith("cond_inst"):
        depth = int(name[-1])
        pixel_channels = width if depth == 1 else pixel_channels
        inputs = [pixel_channels, *[width] * (depth - 1)]
        outputs = [*[width] * (depth - 1), 1]
        dim = sum((i + 1) * o for i, o in zip(inputs, outputs, strict=True))
    head = deepmac.MaskHeadNetwork(
        network_type=name,
        num_init_channels=width,
        use_instance_embedding=joins,
        mask_size=side,
    )
    pixel = random.normal(0, 1, (ROWS, side, side, pixel_channels)).astype(np.float32)
    instance = random.normal(0, 0.5, (ROWS, dim)).astype(np.float32)
    arrays = {"pixel": pixel, "instance": instance}
    arrays |= answer(head, arrays, dtype, lambda variables: fill(variables, seed))
    meta = {"name": name, "width": width, "side": side, "joins": joins}
    return arrays | {"meta": np.array(json.dumps(meta))}


def answer(
    head: deepmac.MaskHeadNetwork,
    inputs: Arrays,
    dtype: str,
    fill_in: Callable[[dict[str, tf.Variable]], None],
) -> Arrays:
    """Logits of evaluation, then those of one training step and what it leaves behind."""
    arguments = [tf.constant(inputs[name].astype(dtype)) for name in ("instance", "pixel")]
    tf.keras.backend.set_learning_phase(0)
    head(*arguments, training=False)
    variables = variables_of(mask_net=head)
    fill_in(variables)
    arrays = values_of(variables, "w::")
    arrays["logits"] = head(*arguments, training=False).numpy()
    tf.keras.backend.set_learning_phase(1)
    arrays["logits_training"] = head(*arguments, training=True).numpy()
    tf.keras.backend.set_learning_phase(0)
    return arrays | values_of(variables, "after::", only="moving_")

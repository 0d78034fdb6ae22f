"""Variables of the TensorFlow original, as this project's parameters.

Keys are those of its object-based checkpoints (``model/_mask_net/_net/...``) or of a mask head
alone (``mask_net/_net/...``), with or without ``/.ATTRIBUTES/VARIABLE_VALUE``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from deepmac.errors import UserError

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

# Module that a key starts with -> prefix of our names. The later forms of the feature extractor
# are those of older CenterNet checkpoints.
_ROOTS = (
    ("mask_net/", ""),
    ("model/_mask_net/", "mask_head."),
    ("model/_feature_extractor/_network/", "backbone.network."),
    ("model/feature_extractor/_network/", "backbone.network."),
    ("feature_extractor/_network/", "backbone.network."),
)
_HEAD_KEY = re.compile(
    r"model/_prediction_head_dict/([^/]+)/(\d+)/layer_with_weights-([01])/(kernel|bias)"
)
_HEADS = {
    "object_center": "heatmap",
    "box/scale": "size",
    "box/offset": "offset",
    "INSTANCE_EMBEDDING": "instance_embedding",
    "PIXEL_EMBEDDING": "pixel_embedding",
}
# Parts of a training checkpoint that are no weights of the model.
_IGNORED = re.compile(
    r"(optimizer|step|global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)(/|$)"
    r"|.*\.OPTIMIZER_SLOT|model/_self_supervised_rng(/|$)"
)
_MODULES = {
    "_net": "net",
    "conv_input": "input_block",
    "downsample_input": "input_block",
    "hourglass_network": "stacks",
    "encoder_block1": "shortcut",
    "encoder_block2": "down",
    "inner_block": "inner",
    "decoder_block": "up",
    "output_conv": "outputs",
    "intermediate_conv1": "join_input",
    "intermediate_conv2": "join_output",
    "intermediate_residual": "join_residual",
}
_KEPT = frozenset(
    {"conv_block", "residual_block", "conv", "norm", "skip", "project_out", "input_layer"}
    | {"fc1", "fc2"}
)
_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_BLOCK = ("norm1", "conv1", "norm2", "conv2", "norm3")
_RESNET_KEY = re.compile(r"(.*?)_net/model/layer_with_weights-(\d+)/([^/]+)")


def convert_variables(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Rename and transpose the original's variables.

    Args:
        variables: arrays by checkpoint key, TensorFlow layout (HWIO kernels). Optimizer state
            and counters are left out.

    Returns:
        A state dict: for ``mask_net/`` keys of a mask head of ``build_mask_head``, for
        ``model/`` keys of a whole ``DeepMAC`` (``backbone.network.``, ``mask_head.``,
        ``heads.{stack}.``). Size and offset come out as (w, h) and (x, y), where the original
        has (h, w) and (y, x). float32, fresh memory.

    Raises:
        UserError: keys that belong to no known part of the model.
    """
    state, unknown = convert_known_variables(variables)
    if unknown:
        raise UserError(
            f"{len(unknown)} variables belong to no known part of a Deep-MAC model: "
            f"{', '.join(sorted(unknown))}; convert a checkpoint of the CenterNet-based Deep-MAC"
        )
    return state


def is_weight(key: str) -> bool:
    """Whether a checkpoint key is more than optimizer state or a counter."""
    return not _IGNORED.match(key)


def convert_known_variables(
    variables: Mapping[str, np.ndarray],
) -> tuple[dict[str, Tensor], list[str]]:
    """:func:`convert_variables`, with the keys of no known part listed instead of refused."""
    arrays = {key.removesuffix(SUFFIX): value for key, value in variables.items()}
    arrays = {key: value for key, value in arrays.items() if is_weight(key)}
    resnet_layers = _resnet_layers(arrays)
    state: dict[str, Tensor] = {}
    unknown = []
    for key, value in arrays.items():
        name = _head_name(key) or _module_name(key, resnet_layers)
        if name is None:
            unknown.append(key)
            continue
        array = np.asarray(value, dtype=np.float32)
        if key.endswith("_net/fc1/kernel"):
            array = _flattened_channels_first(key, array, arrays)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        if re.fullmatch(r"heads\.\d+\.(size|offset)\.2\.(weight|bias)", name):
            array = array[::-1]
        state[name] = torch.from_numpy(array.copy(order="C"))
    return state, unknown


def _head_name(key: str) -> str | None:
    match = _HEAD_KEY.fullmatch(key)
    if match is None:
        return None
    head, stack, layer, leaf = match.groups()
    ours = _HEADS.get(head.replace(".S", "/"))
    return ours and f"heads.{stack}.{ours}.{2 * int(layer)}.{_LEAVES[leaf]}"


def _module_name(key: str, resnet_layers: Mapping[str, str]) -> str | None:
    prefix, path = next(
        ((ours, key.removeprefix(root)) for root, ours in _ROOTS if key.startswith(root)),
        (None, ""),
    )
    *modules, leaf = path.split("/")
    if prefix is None or leaf not in _LEAVES:
        return None
    layer = key.rpartition("/")[0]
    if layer in resnet_layers:
        return f"{prefix}{resnet_layers[layer]}.{_LEAVES[leaf]}"
    ours = []
    for module in modules:
        if not (module in _MODULES or module in _KEPT or module.isdigit()):
            return None
        ours.append(_MODULES.get(module, module))
    return prefix + ".".join([*ours, _LEAVES[leaf]])


def _resnet_layers(keys: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Our names of a residual head's layers, which the original numbers through.

    Its order in a block is norm, conv, norm, conv, norm, then the skip's convolution if any,
    known by its bias.
    """
    layers: dict[tuple[str, int], set[str]] = {}
    for key in keys:
        if match := _RESNET_KEY.fullmatch(key):
            root, number, leaf = match.groups()
            layers.setdefault((root, int(number)), set()).add(leaf)
    names: dict[str, str] = {}
    plain = 0  # layers so far, skips aside
    for root, number in sorted(layers):
        if number == 0:
            plain = 0
        if {"kernel", "bias"} <= layers[root, number]:
            ours = f"{plain // len(_BLOCK) - 1}.shortcut"
        else:
            slot = _BLOCK[plain % len(_BLOCK)]
            if slot.startswith("conv") != ("kernel" in layers[root, number]):
                raise UserError(
                    f"{root}_net/model/layer_with_weights-{number} is not the {slot} expected "
                    "there: give all variables of a residual mask head at once"
                )
            ours = f"{plain // len(_BLOCK)}.{slot}"
            plain += 1
        names[f"{root}_net/model/layer_with_weights-{number}"] = f"net.blocks.{ours}"
    return names


def _flattened_channels_first(
    key: str, kernel: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Rows of the first dense kernel from (H, W, C) to (C, H, W) order."""
    before = arrays.get(key.removesuffix("fc1/kernel") + "input_layer/bias")
    if before is None:
        raise UserError(f"{key} cannot be converted without the input_layer it follows")
    channels = before.shape[0]
    side = math.isqrt(kernel.shape[0] // channels)
    grid = kernel.reshape(side, side, channels, kernel.shape[1])
    return grid.transpose(2, 0, 1, 3).reshape(kernel.shape)

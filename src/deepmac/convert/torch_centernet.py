"""CenterNet and ExtremeNet hourglass-104 weights (PyTorch) under this project's names.

The network of ``ctdet_coco_hg.pth`` (xingyizhou/CenterNet, ``large_hourglass.py``) and of
ExtremeNet is the TensorFlow original's: same blocks, strides, skips, sums and nearest upsampling,
same norms in evaluation, same pixel normalisation (BGR). What differs and is no weight: norms
move their running statistics by 0.1 a step (the original 0.9) and take the unbiased variance.

Detection heads differ from the original's in the order of two channels only, (w, h) and (x, y),
which is ours; ``hm`` has 80 classes in the order of the COCO ids, where the original has 90
slots. ExtremeNet's heads (extreme points) have no counterpart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_STACKED = {
    "cnvs": "outputs",
    "inters": "join_residual",
    "inters_": "join_input",
    "cnvs_": "join_output",
}
_LEVEL = {"up1": "shortcut", "low1": "down", "low3": "up"}
_HEADS = {"hm": "heatmap", "wh": "size", "reg": "offset"}
_BLOCK = {  # the last parts of a name: convolution, residual, projection, head
    "conv": "conv",
    "bn": "norm",
    "conv1": "conv_block.conv",
    "bn1": "conv_block.norm",
    "conv2": "conv",
    "bn2": "norm",
    "skip.0": "skip.conv",
    "skip.1": "skip.norm",
}
_PROJECTION = {"0": "conv", "1": "norm"}
_HEAD_LAYERS = {"0.conv": "0", "1": "2"}
_LEAF = re.compile(r"(.*)\.(weight|bias|running_mean|running_var)")


def is_torch_centernet(names: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of such a network."""
    return any(name.startswith("pre.0.conv.") for name in names) and any(
        name.startswith("kps.0.") for name in names
    )


def convert_torch_centernet(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the tensors.

    Args:
        tensors: by name, without the ``module.`` of data parallelism.

    Returns:
        The state for ``DeepMAC``, and the names that have no counterpart there.
    """
    state: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        ours = _name(name)
        if ours is not None:
            state[ours] = tensor
        elif not name.endswith("num_batches_tracked"):
            unknown.append(name)
    return state, unknown


def _name(name: str) -> str | None:
    match = _LEAF.fullmatch(name)
    if match is None:
        return None
    path, leaf = match.groups()
    root, _, rest = path.partition(".")
    ours: str | None = None
    if root == "pre":
        position, _, block = rest.partition(".")
        where = {"0": "input_block.conv_block", "1": "input_block.residual_block"}.get(position)
        ours = _joined(where, _BLOCK.get(block))
    elif root == "kps":
        ours = _level_name(rest)
    elif root in _STACKED:
        stack, _, block = rest.partition(".")
        parts = _PROJECTION if root.endswith("_") else _BLOCK
        ours = _joined(f"{_STACKED[root]}.{stack}", parts.get(block))
    elif root in _HEADS:
        stack, _, layer = rest.partition(".")
        inner = _joined(f"heads.{stack}.{_HEADS[root]}", _HEAD_LAYERS.get(layer))
        return _joined(inner, leaf)
    return _joined(_joined("backbone.network", ours), leaf)


def _level_name(path: str) -> str | None:
    """``0.low2.low2.up1.1.conv1`` as ``stacks.0.inner.0.inner.0.shortcut.1.conv_block.conv``."""
    stack, *parts = path.split(".")
    ours = ["stacks", stack]
    while len(parts) > 1 and parts[0] == "low2" and not parts[1].isdigit():
        ours += ["inner", "0"]
        parts = parts[1:]
    if len(parts) < 3:
        return None
    chain, block, *rest = parts
    where = "inner" if chain == "low2" else _LEVEL.get(chain)
    return _joined(_joined(".".join(ours), where), _joined(block, _BLOCK.get(".".join(rest))))


def _joined(first: str | None, second: str | None) -> str | None:
    return f"{first}.{second}" if first and second else None

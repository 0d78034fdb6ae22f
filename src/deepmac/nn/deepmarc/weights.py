"""Weights of torchvision's detectors under the names that Deep-MARC, like today's torchvision, has.

The published files are older than the names: Faster R-CNN's and Mask R-CNN's first releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_RENAMED = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
_MASK_LAYER = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")


def torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the old names of detectors replaced and all others kept."""
    return {_name(name): tensor for name, tensor in tensors.items()}


def is_mask_rcnn(names: Iterable[str]) -> bool:
    """Whether tensors of these names were trained with masks: COCO's, of all classes."""
    return any(name.startswith("roi_heads.mask_predictor.") for name in names)


def _name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return _MASK_LAYER.sub(lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}", name)

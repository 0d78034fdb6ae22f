"""What the class slots of a converted network stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepmac.class_map import ClassMap
from deepmac.data.annotations.label_map import COCO_SLOTS, coco_label_map, read_label_map
from deepmac.errors import ConfigError


def class_map_of(slots: int, masked: Sequence[int] = (), label_map: Path | None = None) -> ClassMap:
    """The classes of a network of the original: slot = id - 1, unused ids included.

    Args:
        slots: class slots of the heatmap.
        masked: ids that were trained with masks (``allowed_masked_classes_ids``); none = all.
        label_map: a .pbtxt of ``item { id: ... name: ... }``. Without, 90 slots are COCO's
            classes and others have their id for a name.

    Raises:
        UserError: a label map that is no such file, or has ids beyond the slots.
    """
    names: dict[int, str] = {}
    if label_map or slots == COCO_SLOTS:
        names = (read_label_map(label_map) if label_map else coco_label_map()).names
    ids = range(1, slots + 1)
    beyond = [i for i in (*names, *masked) if i not in ids]
    if beyond:
        where = label_map or "allowed_masked_classes_ids of the pipeline config"
        raise ConfigError(
            f"{where} names class {beyond[0]}, but the network has the classes 1 to {slots}: "
            "give the files of the same model"
        )
    blank = "unused" if names else "class"
    return ClassMap(
        tuple(ids),
        tuple(names.get(i, f"{blank} {i}") for i in ids),
        frozenset(masked) or frozenset(names) or frozenset(ids),
    )

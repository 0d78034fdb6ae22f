"""What the class slots of a converted network stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepmac.class_map import ClassMap
from deepmac.convert.text_proto import read_text_proto
from deepmac.data.splits import NONVOC_NAMES, VOC_NAMES
from deepmac.errors import ConfigError

_COCO_SLOTS = 90
_VOC_IDS = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
_UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


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
    names = _read_names(label_map) if label_map else _coco_names() if slots == _COCO_SLOTS else {}
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


def _coco_names() -> dict[int, str]:
    others = [i for i in range(1, _COCO_SLOTS + 1) if i not in _UNUSED_IDS | set(_VOC_IDS)]
    return dict(zip((*_VOC_IDS, *others), (*VOC_NAMES, *NONVOC_NAMES), strict=True))


def _read_names(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for item in read_text_proto(path).messages("item"):
        ids = item.scalars("id")
        shown = item.scalars("display_name") or item.scalars("name")
        if len(ids) != 1 or type(ids[0]) is not int or not shown:
            raise ConfigError(f"an item of {path} lacks an id or a name: give a label map .pbtxt")
        if ids[0] in names:
            raise ConfigError(f"{path} names class {ids[0]} twice: keep one of the two")
        names[ids[0]] = str(shown[-1])
    if not names:
        raise ConfigError(f"{path} has no items: give a label map .pbtxt")
    return names

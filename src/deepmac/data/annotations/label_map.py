"""Class ids and names of the Object Detection API: its label maps (``.pbtxt``), and COCO's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from deepmac.data.splits import NONVOC_NAMES, VOC_NAMES
from deepmac.errors import ConfigError
from deepmac.protobuf.text_proto import read_text_proto

_VOC_IDS = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
_UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
COCO_SLOTS = 90
"""COCO's largest id: the original's networks have a slot for each from 1, ten of them unused."""


@dataclass(frozen=True)
class LabelMap:
    """Classes by id.

    Attributes:
        names: for people: the ``display_name`` where an item has one.
        id_of: by each word that stands for a class, ``name`` or ``display_name``.
    """

    names: dict[int, str]
    id_of: dict[str, int] = field(default_factory=dict)


def read_label_map(path: Path) -> LabelMap:
    """Read a label map.

    Raises:
        UserError: no such file, or one that is no label map.
    """
    names: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for item in read_text_proto(path).messages("item"):
        ids = item.scalars("id")
        words = [str(w) for key in ("display_name", "name") for w in item.scalars(key)[-1:]]
        if len(ids) != 1 or type(ids[0]) is not int or not words:
            raise ConfigError(f"an item of {path} lacks an id or a name: give a label map .pbtxt")
        number = ids[0]
        if number in names:
            raise ConfigError(f"{path} names class {number} twice: keep one of the two")
        names[number] = words[0]
        for word in words:
            if id_of.setdefault(word, number) != number:
                raise ConfigError(f"{path} gives {word!r:.60} to two classes: keep one of the two")
    if not names:
        raise ConfigError(f"{path} has no items: give a label map .pbtxt")
    return LabelMap(names, id_of)


@cache
def coco_label_map() -> LabelMap:
    """COCO's 80 classes by COCO's ids, as ``mscoco_label_map.pbtxt`` has them."""
    others = [i for i in range(1, COCO_SLOTS + 1) if i not in _UNUSED_IDS | set(_VOC_IDS)]
    names = dict(zip((*_VOC_IDS, *others), (*VOC_NAMES, *NONVOC_NAMES), strict=True))
    return LabelMap(dict(sorted(names.items())), {name: i for i, name in names.items()})

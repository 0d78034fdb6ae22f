"""Which classes have masks in training ("seen"), and the groups that the metrics report."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deepmac.data.annotations.index import CocoIndex
from deepmac.errors import ConfigError

VOC_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table"),
    "tv",
)
"""The 20 COCO classes that Pascal VOC also has, by COCO name."""

NONVOC_NAMES = (
    *("truck", "traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat"),
    *("baseball glove", "skateboard", "surfboard", "tennis racket", "wine glass", "cup", "fork"),
    *("knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot"),
    *("hot dog", "pizza", "donut", "cake", "bed", "toilet", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""The other 60 COCO classes."""

SplitSpec = str | Iterable[str | int]
_WORDS = ("voc", "nonvoc", "all", "annotated")


@dataclass(frozen=True, slots=True)
class Split:
    """Category ids with and without masks in training."""

    seen: frozenset[int]
    unseen: frozenset[int]

    def groups(self) -> dict[str, frozenset[int]]:
        """``{"seen", "unseen", "all"}`` -> category ids, for the metrics."""
        return {"seen": self.seen, "unseen": self.unseen, "all": self.seen | self.unseen}


def make_split(spec: SplitSpec, index: CocoIndex) -> Split:
    """Seen and unseen classes of a (training) set; see ``masked_category_ids``."""
    seen = masked_category_ids(spec, index)
    return Split(seen, frozenset(index.category_ids) - seen)


def masked_category_ids(spec: SplitSpec, index: CocoIndex) -> frozenset[int]:
    """Categories whose masks supervise training.

    Args:
        spec: "voc" or "nonvoc": those of the 20 or 60 COCO classes that the set has, matched by
            COCO name whatever the case; "all"; "annotated": every class with at least one
            object mask in ``index``; or a list of names and category ids.
        index: the training set.

    Raises:
        ConfigError: the set has none of the classes, or a name or id does not exist.
    """
    if isinstance(spec, str):
        return _by_word(spec, index)
    chosen = list(spec)
    if not chosen:
        raise ConfigError(
            "data.masked_classes is an empty list; name at least one class whose masks are "
            "used in training."
        )
    return frozenset(_find(item, index) for item in chosen)


def _by_word(word: str, index: CocoIndex) -> frozenset[int]:
    if word == "all":
        return frozenset(index.category_ids)
    if word == "annotated":
        found = index.summary.masked_categories
        if not found:
            raise ConfigError(
                f"data.masked_classes is annotated but {index.json_path} has no object with a "
                "mask; add segmentations for at least one class, or train on boxes and points "
                "alone with split=all."
            )
        return found
    if word in ("voc", "nonvoc"):
        names = VOC_NAMES if word == "voc" else NONVOC_NAMES
        ids = _ids_by_name(index)
        found = frozenset(ids[name] for name in names if name in ids)
        if not found:
            raise ConfigError(
                f"data.masked_classes is {word} but {index.json_path} has none of the "
                f"{len(names)} {word} classes ({names[0]}, {names[1]}, ...); "
                "use all, annotated or a list of its classes."
            )
        return found
    raise ConfigError(
        f"data.masked_classes is {word!r}; it is one of {', '.join(_WORDS)}, or a list of class "
        f"names or ids such as [{index.categories[0].name}]."
    )


def _find(item: str | int, index: CocoIndex) -> int:
    if isinstance(item, int) and not isinstance(item, bool):
        if item in index.label_of:
            return item
        raise ConfigError(
            f"data.masked_classes names the category id {item}, which {index.json_path} does not "
            f"have; its ids are {_some(index.category_ids)}."
        )
    exact = [category.id for category in index.categories if category.name == str(item)]
    if len(exact) == 1:
        return exact[0]
    ids = _ids_by_name(index)
    key = _key(str(item))
    if key in ids:
        return ids[key]
    close = difflib.get_close_matches(key, ids, n=3)
    names = {_key(category.name): category.name for category in index.categories}
    advice = (
        f"did you mean {' or '.join(names[name] for name in close)}?"
        if close
        else f"its classes are {_some([category.name for category in index.categories])}."
    )
    raise ConfigError(
        f"data.masked_classes names {str(item)!r}, which is no class of {index.json_path}; {advice}"
    )


def _ids_by_name(index: CocoIndex) -> dict[str, int]:
    return {_key(category.name): category.id for category in index.categories}


def _key(name: str) -> str:
    return name.strip().casefold()


def _some(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown + (f", ... ({len(values)} in all)" if len(values) > 8 else "")

"""Which of the sound boxes get a mask: by score, class, number and an earlier job's marks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepmac.data.annotations.box_file import BoxFile
from deepmac.errors import ConfigError
from deepmac.label.marks import read_marks
from deepmac.label.settings import LabelSettings

NOT_LISTED = "not listed in --redo"
LOW_SCORE = "score below --min-score"
OTHER_CLASS = "class not in --classes"
TOO_MANY = "beyond --max-per-image"


@dataclass(frozen=True)
class Choice:
    """What a box has to be to get a mask.

    Attributes:
        min_score: boxes of a lower score get none; those without a score do.
        categories: ids, or None for all.
        max_per_image: of highest score, those without a score first.
        redo: annotation ids whose masks are made anew while all others stay; None for a job that
            is no second one.
    """

    min_score: float | None = None
    categories: frozenset[int | str] | None = None
    max_per_image: int | None = None
    redo: frozenset[int | str] | None = None

    def refuses(self, fields: Mapping[str, Any]) -> str | None:
        """Why an annotation gets no mask, or None."""
        if self.redo is not None and fields["id"] not in self.redo:
            return NOT_LISTED
        if self.categories is not None and fields["category_id"] not in self.categories:
            return OTHER_CLASS
        score = given_score(fields)
        if self.min_score is not None and score is not None and score < self.min_score:
            return LOW_SCORE
        return None

    def best(self, entries: Sequence[Mapping[str, Any]]) -> list[int]:
        """Positions of the boxes of one picture that are within the number, in their order."""
        if self.max_per_image is None or len(entries) <= self.max_per_image:
            return list(range(len(entries)))
        scores = [given_score(entry) for entry in entries]
        order = sorted(
            range(len(entries)), key=lambda n: (scores[n] is not None, -(scores[n] or 0.0), n)
        )
        return sorted(order[: self.max_per_image])

    def identity(self) -> dict[str, Any]:
        """Plain values that tell one choice from another."""
        return {
            "min_score": self.min_score,
            "classes": None if self.categories is None else _sorted(self.categories),
            "max_per_image": self.max_per_image,
            "redo": None if self.redo is None else _digest(self.redo),
        }


def read_choice(settings: LabelSettings, boxes: BoxFile) -> Choice:
    """What the settings say about this box file.

    Raises:
        DataError: the file of ``redo`` cannot be read.
        ConfigError: a class or an annotation that the box file does not have.
    """
    return Choice(
        settings.min_score,
        None if settings.classes is None else _categories(settings.classes, boxes),
        settings.max_per_image,
        None if settings.redo is None else _redo(settings, boxes),
    )


def given_score(fields: Mapping[str, Any]) -> float | None:
    """A box's own score (``score``, MegaDetector's ``conf``), where it has one."""
    for name in ("score", "conf"):
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return min(max(value, -1e9), 1e9)
    return None


def is_of_model(fields: Mapping[str, Any]) -> bool:
    """Whether an annotation's mask is one that ``label`` made, and no person's."""
    return "mask_score" in fields and fields.get("mask_source", "model") != "human"


def _categories(words: str, boxes: BoxFile) -> frozenset[int | str]:
    names: dict[str, int | str] = {}
    for entry in boxes.content["categories"]:
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
            names[str(entry["id"])] = entry["id"]
    for entry in boxes.content["categories"]:  # a name wins over another class's id
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
            names[str(entry.get("name", entry["id"])).strip()] = entry["id"]
    if words.strip() in names:
        return frozenset({names[words.strip()]})
    asked = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [word for word in asked if word not in names]
    if unknown or not asked:
        known = ", ".join(list(names)[-10:])
        raise ConfigError(
            f"--classes {words:.60}: {boxes.path} has no class {', '.join(unknown)!r:.60}; "
            f"it has {known:.200}"
        )
    return frozenset(names[word] for word in asked)


def _redo(settings: LabelSettings, boxes: BoxFile) -> frozenset[int | str]:
    assert settings.redo is not None
    listed = frozenset(read_marks(settings.redo).wrong)
    known = {
        entry["id"]
        for entry in boxes.content["annotations"]
        if isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
    }
    missing = _sorted(listed - known)
    if missing:
        raise ConfigError(
            f"{settings.redo} lists {len(missing)} annotations that {boxes.path} does not have "
            f"(such as {missing[0]!r:.40}): give the output that was looked at as --boxes"
        )
    if not listed:
        raise ConfigError(f"{settings.redo} lists no mask to make anew: mark some, or leave --redo")
    return listed


def _sorted(ids: frozenset[int | str]) -> list[int | str]:
    return sorted(ids, key=lambda one: (isinstance(one, str), one))


def _digest(ids: frozenset[int | str]) -> str:
    return hashlib.sha256(json.dumps(_sorted(ids)).encode()).hexdigest()[:16]

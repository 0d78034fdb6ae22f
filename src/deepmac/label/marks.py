"""What people marked on the review sheet, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac.data.annotations.read_boxes import load_json
from deepmac.errors import DataError

FORMAT = "deepmac-review-1"


@dataclass(frozen=True)
class Marks:
    """Annotation ids by what is to become of them.

    Attributes:
        wrong: masks to be made anew.
        redraw: masks to be drawn by a person.
        accepted: masks that were looked at and found right.
    """

    wrong: tuple[int | str, ...] = ()
    redraw: tuple[int | str, ...] = ()
    accepted: tuple[int | str, ...] = ()

    @property
    def to_see(self) -> tuple[int | str, ...]:
        """Those that a person wants to draw; where there are none, the wrong ones."""
        return self.redraw or self.wrong


def read_marks(path: Path) -> Marks:
    """From a file that the review sheet saved, or a plain list of ids of wrong masks.

    Raises:
        DataError: no such file, or something else.
    """
    content, _ = load_json(path)
    if isinstance(content, list):
        content = {"wrong": content}
    elif not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(
            f"{path} holds no marks of a review sheet ({FORMAT}) and is no list of annotation ids."
        )
    return Marks(*(_ids(path, content.get(key, [])) for key in ("wrong", "redraw", "accepted")))


def _ids(path: Path, value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list) or not all(type(one) in (int, str) for one in value):
        raise DataError(f"{path} has something else than annotation ids in its lists; correct it.")
    return tuple(value)

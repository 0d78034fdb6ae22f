"""Boxes of any format as the content of a COCO file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from deepmac.data.annotations.problems import Problem

BoxFormat = Literal["coco", "yolo", "voc", "megadetector"]
BOX_FORMATS: tuple[str, ...] = get_args(BoxFormat)


@dataclass(frozen=True)
class BoxFile:
    """Boxes as read.

    Attributes:
        path: the file or folder.
        format: what it was.
        content: the dict of a COCO file with the lists ``images``, ``annotations`` and
            ``categories``. For COCO and Camera Traps json the file's own, nothing changed; for the
            others made from theirs, ``bbox`` as xywh in pixels.
        digest: SHA-256 of everything read.
        problems: boxes or images that could not be taken over.
    """

    path: Path
    format: BoxFormat
    content: dict[str, Any]
    digest: str
    problems: list[Problem] = field(default_factory=list)

"""How an output is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Writing:
    """How.

    Attributes:
        format: one of ``deepmac.label.settings.FORMATS``.
        score: from a raw score to the one that is written.
        tighten: write each mask's own box instead of the given one.
        link: pictures in folders are second names of the user's own files, not copies.
        note: about the job, for formats that have a place for it.
    """

    format: str = "coco"
    score: Callable[[float], float] = float
    tighten: bool = False
    link: bool = False
    note: dict[str, Any] = field(default_factory=dict)

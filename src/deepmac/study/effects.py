"""What a study says about the paper's two claims: differences between runs of the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, stdev

from deepmac.study.runs import Row, Study

BASELINE = "resnet4"
"""The shallow head that others are compared with."""


@dataclass(frozen=True)
class Effect:
    """Differences in mean IoU, one for each seed that both sides have.

    Attributes:
        system: ``deepmac`` or ``deepmarc``.
        train_boxes: what the masks of the gaining side were learned on: ``gt`` or ``proposals``.
        mask_head: the head whose gain it is.
        seen: differences on classes with masks in training.
        unseen: differences on the others.
    """

    system: str
    train_boxes: str
    mask_head: str
    seen: tuple[float, ...]
    unseen: tuple[float, ...]


def gains_of_heads(study: Study) -> list[Effect]:
    """Every head less the shallow one of the same system and boxes."""
    found = []
    for rows in study.groups.values():
        for base in (row for row in rows if row.mask_head == BASELINE):
            found += [effect for row in rows if row is not base for effect in _less(row, base)]
    return found


def gains_of_boxes(study: Study) -> list[Effect]:
    """Masks learned on ground-truth boxes less masks learned on proposals, by head."""
    groups = study.groups
    found = []
    for (system, boxes), rows in groups.items():
        others = {row.mask_head: row for row in groups.get((system, "proposals"), [])}
        if boxes == "gt":
            pairs = ((row, others[row.mask_head]) for row in rows if row.mask_head in others)
            found += [effect for row, other in pairs for effect in _less(row, other)]
    return found


def format_value(values: tuple[float, ...]) -> str:
    """``+0.123 ± 0.004``: mean and standard deviation over the seeds."""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):+.3f}{spread}"


def _less(row: Row, base: Row) -> Iterator[Effect]:
    """One effect, or none where no seed is common to both."""
    of_base = {run.seed: run for run in base.runs}
    pairs = [(run, of_base[run.seed]) for run in row.runs if run.seed in of_base]
    if pairs:
        yield Effect(
            *row.group,
            row.mask_head,
            seen=tuple(one.seen - other.seen for one, other in pairs),
            unseen=tuple(one.unseen - other.unseen for one, other in pairs),
        )

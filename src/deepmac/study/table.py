"""The table of a study: one line for each head, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmac.study.effects import BASELINE, Effect, format_value, gains_of_boxes, gains_of_heads
from deepmac.study.runs import Row, Study

_SYSTEM_NAMES = {"deepmac": "Deep-MAC", "deepmarc": "Deep-MARC"}
_BOX_NAMES = {"gt": "ground-truth boxes", "proposals": "proposals"}
_HEADER = (
    "| mask head | parameters, thousands | 10⁶ multiply-adds per box | seen | unseen "
    "| unseen less seen | seeds |"
)


def group_title(group: tuple[str, str]) -> str:
    """``Deep-MARC, masks learned on proposals``."""
    return f"{_SYSTEM_NAMES[group[0]]}, masks learned on {_BOX_NAMES[group[1]]}"


def format_study(study: Study) -> str:
    """Markdown: one table for each system and kind of training boxes, means over the seeds."""
    parts = [
        "Mean IoU of masks in ground-truth boxes; mean ± standard deviation over the seeds.",
        "Same for all runs: " + _settings(study.settings) + ".",
    ]
    for group, rows in study.groups.items():
        floor = f"{rows[0].mean('floor_seen'):.3f} | {rows[0].mean('floor_unseen'):.3f}"
        lines = [
            f"**{group_title(group)}**",
            "",
            _HEADER,
            "|---|---|---|---|---|---|---|",
            *map(_line, rows),
            f"| (the box itself) | | | {floor} | | |",
        ]
        parts.append("\n".join(lines))
    if heads := gains_of_heads(study):
        parts.append(
            f"**What a deeper head gains** over `{BASELINE}`, same seed\n\n" + _effects(heads)
        )
    if boxes := gains_of_boxes(study):
        parts.append(
            "**What ground-truth boxes gain** over proposals, same seed\n\n" + _effects(boxes)
        )
    if study.unfinished:
        parts.append("Not finished: " + ", ".join(study.unfinished) + ".")
    return "\n\n".join(parts) + "\n"


def _effects(effects: list[Effect]) -> str:
    lines = ["| system | masks learned on | mask head | seen | unseen | seeds |"]
    lines.append("|---|---|---|---|---|---|")
    for one in effects:
        names = _SYSTEM_NAMES[one.system], _BOX_NAMES[one.train_boxes], one.mask_head
        values = format_value(one.seen), format_value(one.unseen), str(len(one.seen))
        lines.append("| " + " | ".join((*names, *values)) + " |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    gap = row.mean("unseen") - row.mean("seen")
    seeds = ", ".join(str(run.seed) for run in row.runs)
    cells = (
        row.mask_head,
        f"{row.cost.parameters / 1e3:,.0f}",
        f"{row.cost.multiply_adds / 1e6:,.0f}",
        _value(row, "seen"),
        _value(row, "unseen"),
        f"{gap:+.3f}",
        seeds,
    )
    return "| " + " | ".join(cells) + " |"


def _value(row: Row, name: str) -> str:
    spread = row.spread(name)
    return f"{row.mean(name):.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _settings(settings: Mapping[str, Any]) -> str:
    given = {name: value for name, value in settings.items() if value is not None}
    return ", ".join(f"`{name}={value}`" for name, value in given.items())

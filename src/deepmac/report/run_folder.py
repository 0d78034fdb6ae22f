"""A run directory as plain values for a page."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from deepmac.errors import UserError
from deepmac.evaluation.table import table_rows

ABOUT, CASES = "about.json", "cases.json"
GROUPS = ("all", "seen", "unseen")

_WIDEST = 1800  # pixels of the picture with predictions
_MOST_POINTS = 400  # of a curve; more could not be told apart
_MASKS = "mask_gt_box"
_PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Mask IoU in true boxes", tuple((g, f"{_MASKS}/mIoU/{g}") for g in GROUPS[1:])
     + tuple((f"floor, {g}", f"filled_box/mIoU/{g}") for g in GROUPS[1:])),
    ("Mask AP", tuple((group, f"mask/AP/{group}") for group in GROUPS)),
    ("Box AP", tuple((group, f"box/AP/{group}") for group in GROUPS)),
)  # fmt: skip


def read_run(folder: Path) -> dict[str, Any]:
    """What the page shows of a run.

    Args:
        folder: holds ``metrics.csv``, ``metrics.json``, ``about.json``, ``cases.json`` and
            ``pictures/``, as far as they exist.

    Raises:
        UserError: the folder does not exist, or holds none of them.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run directory {folder}: check the path")
    rows, metrics = _rows(folder / "metrics.csv"), _json(folder / "metrics.json")
    if not rows and not isinstance(metrics, dict):
        raise UserError(
            f"{folder} holds no metrics.csv and no metrics.json: is it a run directory?"
        )
    try:
        return _run(folder, rows, metrics)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"a file of {folder} is damaged ({type(error).__name__}: {error}): it is not what a "
            "training writes into metrics.json, about.json or cases.json"
        ) from error


def _run(folder: Path, rows: Sequence[Mapping[str, str]], metrics: Any) -> dict[str, Any]:
    about = _json(folder / ABOUT)
    cases = _json(folder / CASES)
    name = folder.resolve().name
    return {
        "name": name,
        "about": about if isinstance(about, dict) else {},
        "step": max((int(_number(row.get("step")) or 0) for row in rows), default=0),
        "panels": _panels(rows),
        "table": _table(metrics) if isinstance(metrics, dict) else [],
        "note": _note(metrics) if isinstance(metrics, dict) else "",
        "classes": _classes(metrics) if isinstance(metrics, dict) else [],
        "cases": cases if isinstance(cases, list) else [],
        "picture": _picture(folder),
    }


def _panels(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Curves by panel: each loss beside its validation, then what is measured, then the rates."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name.removeprefix("train/") for name in names if name.startswith("train/")]
    losses = [name for name in losses if not name.startswith("seconds")]
    losses.sort(key=lambda name: (name != "loss", name))
    beside = {
        "Loss" if name == "loss" else f"Loss: {name}": (
            ("training", f"train/{name}"),
            ("validation", f"val/{name}"),
        )
        for name in losses
    }
    rates = tuple((name.removeprefix("lr-"), name) for name in names if name.startswith("lr-"))
    wanted = [*beside.items(), *_PANELS, ("Learning rate", rates)]
    panels = []
    for title, series in wanted:
        curves = [
            {"label": label, "points": points}
            for label, name in series
            if (points := _points(rows, name))
        ]
        if curves:
            shown = (
                title if title[:1].isupper() else f"Loss: {title}" if title != "loss" else "Loss"
            )
            panels.append({"title": shown, "curves": curves})
    return panels


def _points(rows: Sequence[Mapping[str, str]], name: str) -> list[list[float]]:
    found = []
    for row in rows:
        step, value = _number(row.get("step")), _number(row.get(name))
        if step is not None and value is not None:
            found.append([step, float(f"{value:.5g}")])
    stride = max(1, math.ceil(len(found) / _MOST_POINTS))
    return found[::stride] + (found[-1:] if (len(found) - 1) % stride else [])


def _table(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"section": section, "label": label, "values": values, "floors": floors}
        for section, rows in table_rows(metrics, GROUPS)
        for label, values, floors in rows
    ]


def _note(metrics: Mapping[str, Any]) -> str:
    note = "Percent; in brackets the floor, the filled box as the mask"
    if metrics.get("restricted"):
        note += f"; on {metrics['images']} of {metrics['images_in_data_set']} validation images"
    return note + "."


def _classes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "seen": bool(row.get("seen")),
            "count": row.get("instances", 0),
            "box": row.get("box/AP"),
            "mask": row.get("mask/AP"),
            "iou": row.get(f"{_MASKS}/mIoU"),
            "floor": row.get("filled_box/mIoU"),
        }
        for name, row in metrics.get("per_class", {}).items()
    ]


def _picture(folder: Path) -> str:
    """The last picture of predictions as a data URL; "" without one."""
    for path in sorted((folder / "pictures").glob("step_*.png"))[-1:]:
        try:
            with Image.open(path, formats=("PNG",)) as image:
                shown = image.convert("RGB")
                shown.thumbnail((_WIDEST, 8 * _WIDEST))
                return data_url(shown)
        except (OSError, Image.DecompressionBombError):
            return ""
    return ""


def data_url(image: Image.Image) -> str:
    """A picture as text, a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: v for k, v in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None

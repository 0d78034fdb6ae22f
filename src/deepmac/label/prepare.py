"""What is checked before torch is loaded: paths, boxes, marks, calibration."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac.data.annotations.pictures import require_folder
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.errors import ConfigError, DataError, UserError
from deepmac.label.choice import Choice, read_choice
from deepmac.label.parts import writable
from deepmac.label.plan import Plan, make_plan
from deepmac.label.settings import FOLDER_FORMATS, LabelSettings
from deepmac.predict.runtime import require_runtime


@dataclass(frozen=True)
class Prepared:
    """A job that can begin.

    Attributes:
        settings: what was asked for.
        choice: which boxes get a mask.
        plan: what is to be done.
    """

    settings: LabelSettings
    choice: Choice
    plan: Plan


def prepare(settings: LabelSettings) -> Prepared:
    """Check the paths, read the boxes, and plan.

    Raises:
        UserError: anything that a user can mend.
    """
    require_runtime(settings.runtime)
    check_paths(settings)
    source, _ = settings.places
    boxes = read_boxes(source, settings.images, settings.boxes_format)
    if settings.redo is not None and boxes.format != "coco":
        raise ConfigError(
            f"--redo goes on from an output in COCO's format, but {source} is {boxes.format}: "
            "give the output that was looked at as --boxes"
        )
    choice = read_choice(settings, boxes)
    drawn = settings.is_folder or settings.format == "labelstudio"
    plan = make_plan(
        boxes,
        settings.images,
        settings.on_error,
        choice=choice,
        trust_sizes=not drawn,
        images_together=1 if settings.tiles else None,
    )
    return Prepared(settings, choice, plan)


def check_paths(settings: LabelSettings) -> None:
    """Raise UserError for paths that cannot be meant."""
    boxes, out = settings.places
    out = out.absolute()
    require_folder(settings.images)
    if not boxes.exists():
        raise DataError(f"the boxes {boxes} do not exist; check the path.")
    for place in (settings.review, out):
        if place is None:
            continue
        for name in ("boxes", "redo"):
            source = getattr(settings, name)
            if source is not None and place.exists() and place.resolve() == source.resolve():
                file = "box file" if name == "boxes" else "list of --redo"
                raise ConfigError(f"{place} is the {file}: choose another --out")
    if out.is_dir() and not settings.is_folder:
        raise ConfigError(f"{out} is a folder, but {settings.format} is one file: add its name")
    if out.is_file() and settings.is_folder:
        raise ConfigError(f"{out} is a file, but {settings.format} is a folder: choose another")
    with writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write to {out.parent}: choose another --out")
    if os.path.lexists(out) and not settings.overwrite and not read_report(settings):
        if out.is_dir() and not any(out.iterdir()):
            return
        raise ConfigError(f"{out} exists already: choose another --out, or give --overwrite")


def report_path(out: Path, form: str) -> Path:
    """``OUT.report.json`` beside a file, ``report.json`` in a folder."""
    return out / "report.json" if form in FOLDER_FORMATS else out.with_suffix(".report.json")


def read_report(settings: LabelSettings) -> dict[str, Any]:
    """The report beside an output; empty where there is none that a job wrote."""
    _, out = settings.places
    try:
        report = json.loads(report_path(out, settings.format).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if _is_whole(report) else {}


def _is_whole(report: Any) -> bool:
    """Whether all that is told of a finished job is there, of its kind."""
    if not isinstance(report, dict) or not report.keys() >= _KINDS.keys():
        return False
    if not all(isinstance(report[name], kind) for name, kind in _KINDS.items()):
        return False
    measured = report["calibration"]
    if measured is not None and not all(
        isinstance(measured.get(name), int | float) for name in _MEASURED
    ):
        return False
    return all(isinstance(one, dict) and "message" in one for one in report["problems"])


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("labelled", "images", "skipped"), int),
    **dict.fromkeys(("job", "left_alone", "problem_kinds"), dict),
    "problems": list,
    "calibration": dict | None,
}
_MEASURED = ("masks", "spearman", "calibration_error_held_out")

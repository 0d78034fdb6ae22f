"""``deepmac label --images DIR --boxes BOXES --out OUT``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from deepmac.errors import ConfigError, UserError, counted
from deepmac.label.masks.calibration import FILE_NAME, check_file
from deepmac.label.options import parse_arguments
from deepmac.label.settings import LabelSettings
from deepmac.label.stopping import Stopped, stoppable
from deepmac.models.place import WEIGHTS, model_file

SKIPPED = 3
"""Exit code of a job that is finished but left out faulty items."""


def command(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code: 0, ``SKIPPED``, or that of a signal.

    Raises:
        UserError: as :func:`deepmac.label.job.label`.
    """
    if _engine(arguments) == "ray":
        from deepmac.label.cluster.command import command as on_cluster

        return on_cluster(arguments)
    settings = parse_arguments(arguments)
    try:
        with stoppable():
            return _calibrate(settings) if settings.calibrate else _label(settings)
    except Stopped as stop:
        print(f"deepmac: {stop}", file=sys.stderr, flush=True)
        return stop.exit_code
    except OSError as error:  # what is written says so itself: this is something that is read
        where = f" {error.filename}" if error.filename else ""
        raise UserError(
            f"label cannot use{where} ({error.strerror or error}): check that it is there and may "
            "be read"
        ) from error


def _engine(arguments: Sequence[str]) -> str:
    words = [*arguments, ""]
    found = [w.partition("=")[2] for w in words if w.startswith("--engine=")]
    found += [after for word, after in pairwise(words) if word == "--engine"]
    return found[-1] if found else "local"


def _label(settings: LabelSettings) -> int:
    boxes, out = settings.places
    _say(f"label: boxes of {boxes}, pictures in {settings.images} -> {out}")
    weights = model_file(settings.model)
    if settings.calibration is None and weights.name == WEIGHTS:
        beside = weights.with_name(FILE_NAME)
        if beside.is_file():
            settings = replace(settings, calibration=beside)
    if settings.calibration is not None:
        check_file(settings.calibration)
    from deepmac.label.prepare import prepare

    prepared = prepare(settings)
    plan = prepared.plan
    number = sum(len(task.rows) for part in plan.parts.values() for task in part)
    to_make, on = counted(number, "mask"), counted(plan.num_images, "image")
    _say(f"label: {to_make} to make on {on} with {settings.model}")

    from deepmac.label.job import label
    from deepmac.models.files import load_model

    model = load_model(settings.model)
    if marked := plan.with_points:
        about = "" if model.takes_clicks else ", which this model does not take: boxes alone count"
        _say(f"label: {counted(marked, 'annotation')} with points{about}")
    report = label(model, settings, prepared=prepared)
    if report is None:
        return 0
    for line in summary(report, out):
        print(line)
    return SKIPPED if report["skipped"] or report["problems"] else 0


def _say(text: str) -> None:
    """From the first of a job's processes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(text, flush=True)


def summary(report: dict[str, Any], out: Path) -> list[str]:
    """The report in a few lines: what was labelled, what was left alone, what was faulty."""
    masks, on = counted(report["labelled"], "mask"), counted(report["images"], "image")
    lines = [f"{masks} on {on} -> {out}"]
    lines += [f"  {number} x {what}" for what, number in report["left_alone"].items()]
    if report["problems"]:
        kinds = ", ".join(f"{number} {kind}" for kind, number in report["problem_kinds"].items())
        lines.append(f"  {counted(report['skipped'], 'annotation')} skipped ({kinds}), such as:")
        lines += [f"    {problem['message']}" for problem in report["problems"][:3]]
        lines.append("  the report beside the output lists them all")
    if report["calibration"] is None:
        lines.append(
            "  mask_score is the model's raw score, not calibrated: `deepmac label --calibrate "
            "COCO_JSON` with held-out masks makes it the IoU to expect"
        )
    else:
        measured = report["calibration"]
        lines.append(
            f"  mask_score is the IoU to expect (calibrated on {measured['masks']} masks: rank "
            f"correlation {measured['spearman']:.2f}, calibration error "
            f"{measured['calibration_error_held_out']:.3f})"
        )
    return lines


def _calibrate(settings: LabelSettings) -> int:
    source, folder, out = settings.calibrate, Path(settings.model), settings.out
    assert source is not None
    _say(f"label: calibrating {settings.model} on {source}")
    model_file(settings.model)
    if out is None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder to keep a calibration in: say where with --out")
    out = out or folder / FILE_NAME

    from deepmac.files import write_atomically
    from deepmac.label.job import mask_options
    from deepmac.label.masks.held_out import calibrate_model
    from deepmac.label.parts import writable
    from deepmac.models.files import load_model

    model = load_model(settings.model)
    made = calibrate_model(
        model,
        source,
        settings.images,
        mask_options(model, settings),
        batch_size=settings.batch_size,
        workers=settings.workers,
        runtime=settings.runtime,
        trainer={**settings.trainer, "devices": 1, "num_nodes": 1},
    )
    with writable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, made.to_json())
    measured = made.measured or {}
    print(f"{measured['masks']} masks on {measured['images']} held-out images -> {out}")
    print(
        f"  mean IoU {measured['mean_iou']:.3f} (filled box {measured['mean_iou_filled_box']:.3f}, "
        f"filled ellipse {measured['mean_iou_filled_ellipse']:.3f})"
    )
    print(
        f"  boundary IoU {measured['mean_boundary_iou']:.3f}; IoU of 0.9 or more: "
        f"{measured['share_at_least_0.9']:.1%} of the masks, under 0.5: "
        f"{measured['share_under_0.5']:.1%}"
    )
    print(f"  mean IoU by size of object: {_by_size(measured)}")
    print(f"  rank correlation of score and IoU (Spearman) {measured['spearman']:.3f}")
    print(
        f"  expected calibration error {measured['calibration_error_held_out']:.3f} by 5-fold "
        f"cross-validation over images (raw score {measured['calibration_error_raw']:.3f})"
    )
    return 0


def _by_size(measured: dict[str, Any]) -> str:
    said = []
    for name in ("small", "medium", "large"):
        count, mean = measured[f"masks_{name}"], measured[f"mean_iou_{name}"]
        said.append(f"{name} {'-' if mean is None else f'{mean:.3f}'} ({count})")
    return ", ".join(said)

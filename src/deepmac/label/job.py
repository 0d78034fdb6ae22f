"""A whole labelling job: from box file and model to the output, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from deepmac import __version__
from deepmac.data.annotations.problems import count_kinds
from deepmac.data.annotations.read_boxes import read_boxes
from deepmac.errors import ConfigError, UserError
from deepmac.label.inference import Stopwatch, label_parts
from deepmac.label.masks.calibration import Calibration
from deepmac.label.masks.records import MaskOptions
from deepmac.label.merge import Labelled, collect
from deepmac.label.network import BOXES_PER_STEP, model_digest
from deepmac.label.parts import Parts, atomic_file, usual_permissions, writable, write_atomically
from deepmac.label.plan import IMAGES_PER_PART, OnError, Plan, make_plan
from deepmac.label.review import review_sheet
from deepmac.label.writers import FOLDER_FORMATS, FORMATS, write_file, write_folder
from deepmac.models.files import card_of

_VERSION = 1  # of the parts' content


@dataclass(frozen=True)
class LabelSettings:
    """What :func:`label` is asked for.

    Attributes:
        images: folder of the pictures.
        boxes: file or folder of the boxes.
        out: file, or folder for the formats that are one.
        boxes_format: see :func:`deepmac.data.annotations.read_boxes.read_boxes`.
        form: one of ``deepmac.label.writers.FORMATS``.
        masks: how masks are made.
        tighten_boxes: write each mask's own box instead of the given one.
        calibration: file of the model's calibration; None writes raw scores.
        review: path of the review sheet; None makes none.
        review_worst: masks on it.
        on_error: ``stop`` at the first faulty item, or ``skip`` and count.
        overwrite: replace an output that another job left.
        restart: drop an unfinished job of other settings.
        batch_size: images that go through the backbone together.
        workers: processes that decode pictures.
        trainer: arguments of Lightning's ``Trainer``: accelerator, devices, precision, ...
        quiet: no progress.
    """

    images: Path
    boxes: Path
    out: Path
    boxes_format: str = "auto"
    form: str = "coco"
    masks: MaskOptions = field(default_factory=MaskOptions)
    tighten_boxes: bool = False
    calibration: Path | None = None
    review: Path | None = None
    review_worst: int = 100
    on_error: OnError = "stop"
    overwrite: bool = False
    restart: bool = False
    batch_size: int = 4
    workers: int = 0
    trainer: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False


def label(
    model: nn.Module, settings: LabelSettings, watch: Stopwatch | None = None
) -> dict[str, Any] | None:
    """Run a job, or what is left of it.

    Returns:
        The report, as it lies beside the output; None in processes other than the first.

    Raises:
        UserError: anything that a user can mend. Finished work is kept.
    """
    job = _Job(model, settings)
    finished = job.finished_report()
    if finished is not None:
        return finished
    if not settings.restart:
        job.parts.check()
    first = label_parts(
        model,
        job.plan,
        job.parts,
        job.masks,
        image_size=job.image_size,
        batch_size=settings.batch_size,
        workers=settings.workers,
        on_error=settings.on_error,
        restart=settings.restart,
        trainer=settings.trainer,
        watch=watch,
        quiet=settings.quiet,
    )
    return job.write() if first else None


def report_path(out: Path, form: str) -> Path:
    """``OUT.report.json`` beside a file, ``report.json`` in a folder."""
    return out / "report.json" if form in FOLDER_FORMATS else out.with_suffix(".report.json")


class _Job:
    def __init__(self, model: nn.Module, settings: LabelSettings) -> None:
        self.settings = settings
        self._check_paths()
        card = card_of(model)  # type: ignore[arg-type]
        self.image_size = card.image_size if card else 512
        self.digest = model_digest(model, card.to_dict() if card else {})
        self.calibration = (
            Calibration.read(settings.calibration, self.digest) if settings.calibration else None
        )
        needs_polygons = settings.form in ("coco-polygons", "yolo-seg")
        self.masks = MaskOptions(**{**asdict(settings.masks), "polygons": needs_polygons})
        boxes = read_boxes(settings.boxes, settings.images, settings.boxes_format)
        self.plan: Plan = make_plan(boxes, settings.images, settings.on_error)
        out = settings.out.absolute()
        self.parts = Parts(out.parent / f".{out.name}.parts", self._identity())

    def finished_report(self) -> dict[str, Any] | None:
        """The report of an output that this very job has finished; UserError for any other one."""
        out, form = self.settings.out, self.settings.form
        if not os.path.lexists(out):
            return None
        try:
            report: dict[str, Any] = json.loads(report_path(out, form).read_text("utf-8"))
        except (OSError, ValueError):
            report = {}
        folder = form in FOLDER_FORMATS
        same = report.get("job") == self.parts.identity
        review = self.settings.review
        same = same and (review is None or review.is_file())
        if same and (folder or report.get("sha256") == _sha256(out)):
            self.parts.sweep()
            return report
        if folder and out.is_dir() and not any(out.iterdir()):
            return None
        if self.settings.overwrite and (not folder or "job" in report):
            return None
        if self.settings.overwrite:
            raise ConfigError(f"{out} was not written by deepmac label: remove it yourself first")
        raise ConfigError(f"{out} exists already: choose another --out, or give --overwrite")

    def write(self) -> dict[str, Any]:
        """Merge the parts; the output's rename is the last step."""
        settings, labelled = self.settings, collect(self.plan, self.parts)
        score = self.calibration or float
        report = self._report(labelled)
        out = settings.out.absolute()
        with writable(out):
            if settings.review is not None:
                about = self._about(report)
                page = review_sheet(labelled, score, settings.review_worst, about)
                self._put(settings.review.absolute(), page)
            if settings.form in FOLDER_FORMATS:
                self._write_folder(out, labelled, report)
            else:
                self._write_file(out, labelled, report)
            self.parts.remove()
        return report

    def _write_file(self, out: Path, labelled: Labelled, report: dict[str, Any]) -> None:
        note = {
            "version": __version__,
            "model": self.digest[:16],
            "mask_score": report["mask_score"],
            "masks": report["labelled"],
        }
        draft = self.parts.folder / "output"
        score = self.calibration or float
        with atomic_file(draft) as file:
            form, tighten = self.settings.form, self.settings.tighten_boxes
            write_file(file, labelled, form, score, note, tighten)
        report["sha256"] = _sha256(draft)
        self._put(report_path(out, self.settings.form), _pretty(report))
        os.replace(draft, out)

    def _write_folder(self, out: Path, labelled: Labelled, report: dict[str, Any]) -> None:
        draft = Path(tempfile.mkdtemp(dir=self.parts.folder, prefix="output-"))
        score = self.calibration or float
        report["left_alone"] |= write_folder(draft, labelled, self.settings.form, score)
        (draft / "report.json").write_text(_pretty(report), encoding="utf-8")
        usual_permissions(draft)
        if out.exists():  # empty, or ours with --overwrite
            out.rename(self.parts.folder / f"old-{os.getpid()}")
        draft.rename(out)

    def _put(self, path: Path, text: str) -> None:
        """Write a text that appears whole; a kill leaves at most one draft, in our own folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.parts.folder / f"draft-{path.name}"
        draft.write_text(text, encoding="utf-8")
        try:
            os.replace(draft, path)
        except OSError as error:
            if error.errno != errno.EXDEV:  # another disk
                raise
            write_atomically(path, text)

    def _report(self, labelled: Labelled) -> dict[str, Any]:
        """Everything that became of every annotation; the same however the job was run."""
        unread = sum(len(rows) for _, _, rows in labelled.errors)
        problems = [
            *({"kind": p.kind, "message": p.message} for p in self.plan.problems),
            *({"kind": kind, "message": text} for kind, text, _ in labelled.errors),
        ]
        kinds = dict(count_kinds(self.plan.problems))
        for kind, _, _ in labelled.errors:
            kinds[kind] = kinds.get(kind, 0) + 1
        left_alone = dict(self.plan.left_alone)
        if labelled.empty:
            left_alone["mask without a pixel"] = len(labelled.empty)
        return {
            "labelled": len(labelled.rows),
            "images": self.plan.num_images - len(labelled.errors),
            "left_alone": left_alone,
            "skipped": self.plan.faulty + unread,
            "problem_kinds": kinds,
            "mask_score": "expected IoU, calibrated" if self.calibration else "raw, uncalibrated",
            "calibration": self.calibration.measured if self.calibration else None,
            "problems": problems,
            "job": self.parts.identity,
        }

    def _about(self, report: dict[str, Any]) -> str:
        return (
            f"{report['labelled']} masks on {report['images']} images; "
            f"score: {report['mask_score']}"
        )

    def _identity(self) -> dict[str, Any]:
        """All that the output depends on, beside the pictures."""
        settings = self.settings
        calibration = self.calibration.to_json() if self.calibration else ""
        return {
            "version": _VERSION,
            "model": self.digest,
            "boxes": self.plan.boxes.digest,
            "image_size": self.image_size,
            "images_per_part": IMAGES_PER_PART,
            "boxes_per_step": BOXES_PER_STEP,
            "batch_size": settings.batch_size,
            "precision": str(settings.trainer.get("precision", "32-true")),
            "calibration": hashlib.sha256(calibration.encode()).hexdigest(),
            "boxes_format": self.plan.boxes.format,
            "format": settings.form,
            "tighten_boxes": settings.tighten_boxes,
            **asdict(self.masks),
        }

    def _check_paths(self) -> None:
        settings = self.settings
        if settings.form not in FORMATS:
            raise ConfigError(f"no format {settings.form!r}; there are {', '.join(FORMATS)}")
        out = settings.out.absolute()
        places = [p for p in (settings.review, out) if p is not None]
        for place in places:
            if place.exists() and place.resolve() == settings.boxes.resolve():
                raise ConfigError(f"{place} is the box file: choose another --out")
        folder = settings.form in FOLDER_FORMATS
        if out.is_dir() and not folder:
            raise ConfigError(f"{out} is a folder, but {settings.form} is one file: add its name")
        if out.is_file() and folder:
            raise ConfigError(f"{out} is a file, but {settings.form} is a folder: choose another")
        with writable(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise UserError(f"cannot write to {out.parent}: choose another --out")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _pretty(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"

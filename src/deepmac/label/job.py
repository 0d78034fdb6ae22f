"""A whole labelling job: from box file and model to the output, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepmac import __version__
from deepmac.data.annotations.problems import count_kinds
from deepmac.errors import ConfigError, counted
from deepmac.files import atomic_file, usual_permissions, write_atomically
from deepmac.label.digest import model_digest
from deepmac.label.inference import Stopwatch, label_parts, label_precision
from deepmac.label.loading import IMAGES_TOGETHER
from deepmac.label.masks.calibration import Calibration
from deepmac.label.masks.records import MaskOptions
from deepmac.label.merge import Labelled, collect
from deepmac.label.parts import Parts, writable
from deepmac.label.prepare import Prepared, prepare, read_report, report_path
from deepmac.label.review import review_sheet
from deepmac.label.settings import POLYGON_FORMATS, LabelSettings
from deepmac.label.stopping import Stopped
from deepmac.label.writers import FILE_WRITERS, FOLDER_WRITERS, Writing
from deepmac.models.files import own_refine, own_threshold
from deepmac.nn.network import SegmentationNetwork
from deepmac.predict.letterbox import InputSpec
from deepmac.predict.masks import BOXES_PER_STEP

_VERSION = 3  # of the parts' content


def label(
    model: SegmentationNetwork,
    settings: LabelSettings,
    watch: Stopwatch | None = None,
    *,
    prepared: Prepared | None = None,
) -> dict[str, Any] | None:
    """Run a job, or what is left of it.

    Args:
        model: from ``load_model``, in eval mode.
        settings: what is asked for.
        watch: gets the seconds of each stage.
        prepared: the job, where :func:`deepmac.label.prepare.prepare` has been asked already.

    Returns:
        The report, as it lies beside the output; None in processes other than the first.

    Raises:
        UserError: anything that a user can mend. Finished work is kept.
        Stopped: by a signal. Finished work is kept.
    """
    job = _Job(model, prepared or prepare(settings))
    finished = job.finished_report()
    if finished is not None:
        return finished
    if not settings.restart:
        job.parts.check()
    try:
        first = label_parts(
            model,
            job.plan,
            job.parts,
            job.masks,
            spec=job.spec,
            batch_size=settings.batch_size,
            workers=settings.workers,
            on_error=settings.on_error,
            restart=settings.restart,
            shard=settings.share,
            tiles=settings.tiles,
            runtime=settings.runtime,
            trainer=settings.trainer,
            watch=watch,
            quiet=settings.quiet,
        )
        if first and settings.share[1] > 1 and not job.is_last_shard():
            return None
        return job.write() if first else None
    except Stopped as stop:
        stop.kept = job.kept()
        raise


def mask_options(model: SegmentationNetwork, settings: LabelSettings) -> MaskOptions:
    """How a model's masks are to be made."""
    return MaskOptions(
        threshold=own_threshold(model) if settings.threshold is None else settings.threshold,
        largest_component=settings.largest_component,
        fill_holes=settings.fill_holes,
        polygons=settings.format in POLYGON_FORMATS,
        box_margin=settings.box_margin,
        refine=own_refine(model) if settings.refine is None else settings.refine,
    )


class _Job:
    def __init__(self, model: SegmentationNetwork, prepared: Prepared) -> None:
        self.settings, self.choice, self.plan = prepared.settings, prepared.choice, prepared.plan
        self.out = self.settings.places[1].absolute()
        self.spec = InputSpec.of(model)
        self.digest = model_digest(model)
        path = self.settings.calibration
        self.calibration = Calibration.read(path, self.digest) if path else None
        self.score: Callable[[float], float] = self.calibration or float
        self.masks = mask_options(model, self.settings)
        self.parts = Parts(self.out.parent / f".{self.out.name}.parts", self._identity())

    def kept(self) -> str:
        """What of the job is on disk, and how to go on."""
        done = sum(len(t) for n, t in self.plan.parts.items() if self.parts.path(n).is_file())
        return (
            f"the masks of {done} of {self.plan.num_images} images are kept in "
            f"{self.parts.folder}; give the same command again to go on"
        )

    def is_last_shard(self) -> bool:
        """After a shard: whether all others are done and this process is to write the output."""
        left = [n for n, t in self.plan.parts.items() if not self.parts.is_done(n, t)]
        if not left and self.parts.take_over():
            return True
        self.parts.release()
        if not self.settings.quiet:
            state = f"{len(left)} of {len(self.plan.parts)} parts are left to the others"
            print(f"shard {self.settings.shard} is done; {state if left else 'another one writes'}")
        return False

    def finished_report(self) -> dict[str, Any] | None:
        """The report of an output that this very job has finished; UserError for any other one."""
        out, folder, review = self.out, self.settings.is_folder, self.settings.review
        if not os.path.lexists(out):
            return None
        report = read_report(self.settings)
        same = report.get("job") == self.parts.identity
        same = same and (review is None or review.is_file())
        if same and (folder or report.get("sha256") == _sha256(out)):
            self.parts.sweep()
            return report
        if folder and out.is_dir() and not any(out.iterdir()):
            return None
        if self.settings.overwrite and (not folder or report):
            return None
        if self.settings.overwrite:
            raise ConfigError(f"{out} was not written by deepmac label: remove it yourself first")
        raise ConfigError(f"{out} exists already: choose another --out, or give --overwrite")

    def write(self) -> dict[str, Any]:
        """Merge the parts; the output's rename is the last step."""
        settings, labelled = self.settings, collect(self.plan, self.parts)
        report = self._report(labelled)
        if settings.review is not None:
            worst, about = settings.review_worst, self._about(report)
            page = review_sheet(labelled, self.score, worst, about)
            self._put(settings.review.absolute(), page)
        how = Writing(
            settings.format, self.score, settings.tighten_boxes, settings.link, self._note(report)
        )
        with writable(self.out):
            if settings.is_folder:
                self._write_folder(labelled, how, report)
            else:
                self._write_file(labelled, how, report)
            self.parts.remove()
        return report

    def _write_file(self, labelled: Labelled, how: Writing, report: dict[str, Any]) -> None:
        draft = self.parts.folder / "output"
        with atomic_file(draft) as file:
            FILE_WRITERS[how.format](file, labelled, how)
        report["sha256"] = _sha256(draft)
        self._put(report_path(self.out, how.format), _pretty(report))
        os.replace(draft, self.out)

    def _write_folder(self, labelled: Labelled, how: Writing, report: dict[str, Any]) -> None:
        draft = Path(tempfile.mkdtemp(dir=self.parts.folder, prefix="output-"))
        report["left_alone"] |= FOLDER_WRITERS[how.format](draft, labelled, how)
        (draft / "report.json").write_text(_pretty(report), encoding="utf-8")
        usual_permissions(draft)
        if self.out.exists():  # empty, or ours with --overwrite
            self.out.rename(self.parts.folder / f"old-{os.getpid()}")
        draft.rename(self.out)

    def _note(self, report: dict[str, Any]) -> dict[str, Any]:
        """What the output says about the job; a second job's is added to the first one's."""
        note = {
            "version": __version__,
            "model": self.digest[:16],
            "mask_score": report["mask_score"],
            "masks": report["labelled"],
        }
        before = self.plan.boxes.content.get("deepmac_label")
        if self.choice.redo is None or not isinstance(before, dict):
            return note
        again = before.get("redone")
        return {**before, "redone": [*(again if isinstance(again, list) else []), note]}

    def _put(self, path: Path, text: str) -> None:
        """Write a text that appears whole; a kill leaves at most one draft, in our own folder."""
        with writable(path):
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
            f"{counted(report['labelled'], 'mask')} on {counted(report['images'], 'image')}; "
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
            "image_size": self.spec.image_size,
            "input_shape": self.spec.shape,
            "images_together": IMAGES_TOGETHER,
            "boxes_per_step": BOXES_PER_STEP,
            "batch_size": settings.batch_size,
            "precision": label_precision(settings.trainer),
            "runtime": settings.runtime,
            "calibration": hashlib.sha256(calibration.encode()).hexdigest(),
            "boxes_format": self.plan.boxes.format,
            "format": settings.format,
            "tighten_boxes": settings.tighten_boxes,
            "link": settings.link,
            "tiles": settings.tiles,
            **self.choice.identity(),
            **asdict(self.masks),
        }


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _pretty(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"

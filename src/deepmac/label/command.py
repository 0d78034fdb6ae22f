"""``deepmac label --model M --images DIR --boxes BOXES --out OUT``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmac.errors import ConfigError

if TYPE_CHECKING:
    from deepmac.models.files import Network

_FORMATS = ("coco", "coco-polygons", "coco-results", "yolo-seg", "png")
_BOX_FORMATS = ("auto", "coco", "yolo", "voc", "megadetector")

SKIPPED = 3
"""Exit code of a job that is finished but left out faulty items."""


def command(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code: 0, or ``SKIPPED``.

    Raises:
        UserError: as :func:`deepmac.label.job.label`.
    """
    options = _parser().parse_args(list(arguments))
    if options.calibrate is None and (options.boxes is None or options.out is None):
        raise ConfigError("label needs --boxes and --out (or --calibrate COCO_JSON)")
    if options.calibrate is not None and options.boxes is not None:
        raise ConfigError("--calibrate is a job of its own: run it first, without --boxes")
    if not 0 <= options.box_margin <= 1:
        raise ConfigError(f"--box-margin {options.box_margin} is a share from 0 to 1 of the sides")
    if options.threshold is not None and not 0 < options.threshold < 1:
        raise ConfigError(f"--threshold {options.threshold} lies between 0 and 1")
    if options.batch_size < 1 or options.workers < 0:
        raise ConfigError("--batch-size is at least 1 and --workers at least 0")

    from deepmac.models.files import load_model

    model = load_model(options.model)
    return _calibrate(model, options) if options.calibrate else _label(model, options)


def _label(model: Network, options: argparse.Namespace) -> int:
    from deepmac.label.job import LabelSettings, label
    from deepmac.label.masks.calibration import FILE_NAME
    from deepmac.models.files import WEIGHTS, model_file

    weights = model_file(options.model)
    beside = weights.with_name(FILE_NAME) if weights.name == WEIGHTS else None
    calibration = options.calibration or (beside if beside and beside.is_file() else None)
    settings = LabelSettings(
        images=options.images,
        boxes=options.boxes,
        out=options.out,
        boxes_format=options.boxes_format,
        form=options.format,
        masks=_mask_options(model, options),
        tighten_boxes=options.tighten_boxes,
        calibration=calibration,
        review=options.review,
        review_worst=options.review_worst,
        on_error=options.on_error,
        overwrite=options.overwrite,
        restart=options.restart,
        batch_size=options.batch_size,
        workers=options.workers,
        trainer=_trainer(options),
    )
    report = label(model, settings)
    if report is None:
        return 0
    for line in summary(report, options.out):
        print(line)
    return SKIPPED if report["skipped"] or report["problems"] else 0


def summary(report: dict[str, Any], out: Path) -> list[str]:
    """The report in a few lines: what was labelled, what was left alone, what was faulty."""
    lines = [f"{report['labelled']} masks on {report['images']} images -> {out}"]
    lines += [f"  {number} x {what}" for what, number in report["left_alone"].items()]
    if report["problems"]:
        kinds = ", ".join(f"{number} {kind}" for kind, number in report["problem_kinds"].items())
        lines.append(f"  {report['skipped']} annotations skipped ({kinds}), such as:")
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


def _calibrate(model: Network, options: argparse.Namespace) -> int:
    from deepmac.label.masks.calibration import FILE_NAME
    from deepmac.label.masks.held_out import calibrate_model
    from deepmac.label.parts import writable, write_atomically

    folder = Path(options.model)
    if options.out is None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder to keep a calibration in: say where with --out")
    out = options.out or folder / FILE_NAME
    made = calibrate_model(
        model,
        options.calibrate,
        options.images,
        _mask_options(model, options),
        batch_size=options.batch_size,
        workers=options.workers,
        trainer={**_trainer(options), "devices": 1, "num_nodes": 1},
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
    print(f"  rank correlation of score and IoU (Spearman) {measured['spearman']:.3f}")
    print(
        f"  expected calibration error {measured['calibration_error_held_out']:.3f} by 5-fold "
        f"cross-validation over images (raw score {measured['calibration_error_raw']:.3f})"
    )
    return 0


def _mask_options(model: Network, options: argparse.Namespace) -> Any:
    from deepmac.label.masks.records import MaskOptions
    from deepmac.models.files import own_threshold

    return MaskOptions(
        threshold=own_threshold(model) if options.threshold is None else options.threshold,
        largest_component=options.largest_component,
        fill_holes=options.fill_holes,
        box_margin=options.box_margin,
    )


def _trainer(options: argparse.Namespace) -> dict[str, Any]:
    devices = int(options.devices) if options.devices.isdecimal() else options.devices
    return {
        "accelerator": options.accelerator,
        "devices": devices,
        "num_nodes": options.num_nodes,
        "precision": options.precision,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepmac label",
        description="Give every box of a data set its mask. Ids, boxes and unknown keys stay as "
        "they are, masks that people drew are never overwritten. A job that was interrupted goes "
        "on where it stood when the same command is given again; the output appears whole.",
        epilog="exit code: 0 all done, 3 done but faulty items were skipped, 1 stopped by an error",
    )
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="model name, folder, .safetensors or .ckpt")
    add("--images", required=True, type=Path, metavar="DIR", help="folder of the pictures")
    add("--boxes", type=Path, metavar="B", help="COCO, Camera Traps or MegaDetector json; folder "
        "of YOLO .txt or Pascal VOC .xml")  # fmt: skip
    add("--out", type=Path, metavar="OUT", help="file, or folder for yolo-seg and png")
    add("--boxes-format", choices=_BOX_FORMATS, default="auto")
    add("--format", choices=_FORMATS, default="coco", help="coco: run lengths; coco-polygons: "
        "polygons, holes kept by seams; coco-results: for loadRes (default: coco)")  # fmt: skip
    masks = parser.add_argument_group("masks")
    add = masks.add_argument
    add("--box-margin", type=float, default=0.0, metavar="SHARE", help="look beyond loose or tight "
        "boxes by this share of their sides (default: 0)")  # fmt: skip
    add("--tighten-boxes", action="store_true", help="write each mask's own box")
    add("--largest-component", action="store_true", help="drop all but a mask's largest part")
    add("--fill-holes", action="store_true", help="fill what a mask encloses")
    add("--threshold", type=float, help="of the pixels' probability (default: the model's own)")
    add("--calibration", type=Path, metavar="FILE", help="default: calibration.json of the model's "
        "folder, where it is")  # fmt: skip
    add("--calibrate", type=Path, metavar="COCO_JSON", help="instead of labelling: fit the scores "
        "to held-out masks, write the calibration to the model's folder or --out")  # fmt: skip
    review = parser.add_argument_group("looking at it")
    add = review.add_argument
    add("--review", type=Path, metavar="HTML", help="write a page with the masks of lowest score")
    add("--review-worst", type=int, default=100, metavar="N", help="how many (default: 100)")
    job = parser.add_argument_group("the job")
    add = job.add_argument
    add("--on-error", choices=("stop", "skip"), default="stop", help="at a faulty box or picture")
    add("--overwrite", action="store_true", help="replace an output of another job")
    add("--restart", action="store_true", help="drop an unfinished job of other settings")
    add("--batch-size", type=int, default=4, metavar="N", help="images at once (default: 4)")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N",
        help="processes that decode pictures (default: %(default)s)")  # fmt: skip
    add("--accelerator", default="auto", help="Lightning's: auto, cpu, gpu, ...")
    add("--devices", default="1", help="Lightning's: a number, or auto for all (default: 1)")
    add("--num-nodes", type=int, default=1, metavar="N", help="hosts; all see the output folder")
    add("--precision", default="32-true", help="Lightning's, such as bf16-mixed")
    return parser

"""All that a labelling job can be asked for; the command line is made from these classes.

Nothing here imports torch: what a user mistypes is said before it is loaded.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from deepmac.data.annotations.layout import Format as BoxesFormat
from deepmac.errors import ConfigError
from deepmac.models.refining import Refine
from deepmac.predict.runtime import Runtime

OnError = Literal["stop", "skip"]
Format = Literal[
    "coco", "coco-polygons", "coco-results", "labelstudio", "yolo-seg", "yolo", "labelme", "png"
]
FORMATS: tuple[str, ...] = get_args(Format)
FOLDER_FORMATS = ("yolo-seg", "yolo", "labelme", "png")
PICTURE_FORMATS = ("yolo-seg", "yolo", "labelme")
"""Folders that hold the pictures too."""
POLYGON_FORMATS = ("coco-polygons", "labelstudio", "yolo-seg", "labelme")
"""Formats that hold outlines."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """what goes in and what comes out

    Attributes:
        model: name, folder, .safetensors or .ckpt.
        images: folder of the pictures.
        boxes: COCO, Camera Traps or MegaDetector json, an Open Images csv, a TFRecord (all shards
            of its set); or a folder of YOLO .txt, Pascal VOC .xml or LabelMe .json files.
        out: file, or folder for yolo-seg, yolo, labelme and png.
        boxes_format: what the boxes are; auto looks. yolo-obb: turned boxes, by their corners.
        format: coco: run lengths; coco-polygons: polygons, holes kept by seams; coco-results: for
            loadRes; labelstudio: tasks with predictions; yolo-seg and yolo: a folder to train on;
            labelme: a file for each picture; png: a picture for each mask.
        link: pictures in the folders of yolo-seg, yolo and labelme are second names (hard links) of
            yours, which take no room; who edits one edits the other. Without it they are copies.
    """

    model: str = "deepmac-lite"
    images: Path
    boxes: Path | None = None
    out: Path | None = None
    boxes_format: BoxesFormat = "auto"
    format: Format = "coco"
    link: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """which boxes get a mask

    Attributes:
        min_score: none for boxes of a lower score; boxes without a score get one.
        classes: only these, by name or id, with commas between.
        max_per_image: at most so many boxes of a picture, those of highest score.
        redo: only the annotations that this file lists, whose masks of an earlier job are made
            anew: a list of ids, or what the review sheet saved (its wrong ones); all else stays.
    """

    min_score: float | None = None
    classes: str | None = None
    max_per_image: int | None = None
    redo: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Masks:
    """masks

    Attributes:
        tiles: look at large pictures in tiles too, down to the side of the network's input: for
            objects that are small in them.
        box_margin: look beyond loose or tight boxes by this share of their sides.
        tighten_boxes: write each mask's own box.
        largest_component: drop all but a mask's largest part.
        fill_holes: fill what a mask encloses.
        threshold: of the pixels' probability; the model's own where none is given.
        refine: edges: masks snapped to the picture's colours and edges, without specks; full: with
            more looks at the picture beforehand, for several times the time; none: as the network
            gives them. The model's own where none is given.
        calibration: default is calibration.json of the model's folder, where it is.
        calibrate: instead of labelling: fit the scores to the held-out masks of this COCO json,
            write the calibration to the model's folder or to --out.
    """

    tiles: bool = False
    box_margin: float = 0.0
    tighten_boxes: bool = False
    largest_component: bool = False
    fill_holes: bool = False
    threshold: float | None = None
    refine: Refine | None = None
    calibration: Path | None = None
    calibrate: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Review:
    """looking at it

    Attributes:
        review: write a page with the masks of lowest score.
        review_worst: how many.
    """

    review: Path | None = None
    review_worst: int = 100


@dataclass(frozen=True, kw_only=True)
class Running:
    """the job

    Attributes:
        on_error: at a faulty box or picture.
        overwrite: replace an output of another job.
        restart: drop an unfinished job of other settings.
        batch_size: images at once.
        workers: processes that decode pictures.
        accelerator: Lightning's; auto, cpu, gpu, ...
        devices: Lightning's; a number, or auto for all.
        num_nodes: hosts; all see the output folder.
        engine: local, this machine and those that Lightning starts; ray, a cluster, with boxes and
            masks as Parquet tables (its own options: --engine ray --help).
        shard: i/n, i from 0: every n-th part, for job arrays that share the output's folder; the
            last one writes the output.
        precision: 32; bf16, sooner where the processor or card computes in it; auto, that where
            it does; or another name of Lightning's.
        runtime: openvino: the network's backbone by OpenVINO, sooner on CPUs; torch: all of it by
            torch.
    """

    on_error: OnError = "stop"
    overwrite: bool = False
    restart: bool = False
    batch_size: int = 4
    workers: int = min(4, os.cpu_count() or 1)
    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    engine: Literal["local", "ray"] = "local"
    shard: str | None = None
    precision: str = "32"
    runtime: Runtime = "torch"


GROUPS = (Data, Choice, Masks, Review, Running)


@dataclass(frozen=True, kw_only=True)
class LabelSettings(Running, Review, Masks, Choice, Data):
    """What :func:`deepmac.label.job.label` is asked for; see the bases for each setting.

    Attributes:
        quiet: no progress.

    Raises:
        ConfigError: a value out of its range, or settings that contradict each other.
    """

    quiet: bool = False

    def __post_init__(self) -> None:
        for name in _PATHS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(value))
        for name, (holds, sentence) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise ConfigError(f"--{name.replace('_', '-')} {value} {sentence}")
        if self.share[1] > 1 and (self.restart or self.overwrite):
            raise ConfigError(
                "--shard goes with neither --restart nor --overwrite: begin anew once"
            )
        if self.runtime == "openvino" and self.accelerator not in ("auto", "cpu"):
            raise ConfigError(
                f"--runtime openvino computes on processors, not on {self.accelerator}: leave it "
                "out, or give --accelerator cpu"
            )
        if self.format not in FORMATS:
            raise ConfigError(f"no format {self.format!r}; there are {', '.join(FORMATS)}")
        if self.link and self.format not in PICTURE_FORMATS:
            raise ConfigError(
                f"--link is for {', '.join(PICTURE_FORMATS)}, whose folders hold the pictures: "
                f"leave it out with --format {self.format}"
            )
        if self.calibrate is None and (self.boxes is None or self.out is None):
            raise ConfigError("label needs --boxes and --out (or --calibrate COCO_JSON)")
        if self.calibrate is not None and self.boxes is not None:
            raise ConfigError("--calibrate is a job of its own: run it first, without --boxes")

    @property
    def share(self) -> tuple[int, int]:
        """(i, n) of the shard; (0, 1) is all of it.

        Raises:
            ConfigError: it is no i/n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard or "0/1")
        if found is None or not int(found[1]) < int(found[2]):
            raise ConfigError(f"--shard {self.shard} is no i/n with i from 0 to n-1, such as 0/8")
        return int(found[1]), int(found[2])

    @property
    def is_folder(self) -> bool:
        """Whether the output is one."""
        return self.format in FOLDER_FORMATS

    @property
    def places(self) -> tuple[Path, Path]:
        """The boxes and the output, of a job that labels."""
        assert self.boxes is not None and self.out is not None
        return self.boxes, self.out

    @property
    def trainer(self) -> dict[str, Any]:
        """Arguments of Lightning's ``Trainer``."""
        names = ("accelerator", "devices", "num_nodes", "precision")
        given = {name: getattr(self, name) for name in names}
        return given if self.runtime == "torch" else given | {"accelerator": "cpu"}


_PATHS = ("images", "boxes", "out", "redo", "calibration", "calibrate", "review")
_RANGES: dict[str, Any] = {
    "box_margin": (lambda v: 0 <= v <= 1, "is a share from 0 to 1 of the sides"),
    "threshold": (lambda v: 0 < v < 1, "lies between 0 and 1"),
    "min_score": (math.isfinite, "is no number"),
    "max_per_image": (lambda v: v >= 1, "is at least 1"),
    "review_worst": (lambda v: v >= 0, "is at least 0"),
    "batch_size": (lambda v: 1 <= v <= 4096, "is from 1 to 4096"),
    "workers": (lambda v: 0 <= v <= 1024, "is from 0 to 1024"),
    "num_nodes": (lambda v: v >= 1, "is at least 1"),
}


def setting_names() -> list[str]:
    """Of everything that the command line takes."""
    return [field.name for group in GROUPS for field in fields(group)]

"""The embedded ``shapes`` data set: generated pictures and COCO files, written on first use.

Ten classes, masks for five of them in the training file: a small stand-in for partially
supervised instance segmentation that needs no download. The pictures are drawn by
``shapes_picture.py``; this file puts them on disk.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deepmac.data.shapes.outlines import SHAPES
from deepmac.data.shapes.picture import KNOBS, Difficulty, PlacedObject, draw_picture
from deepmac.errors import ConfigError, DataError
from deepmac.files import folder_draft, sweep_drafts

SHAPES_VERSION = 1
"""Raised whenever the same settings would give other pictures or annotations."""

SEEN_SHAPES: tuple[str, ...] = tuple(shape.name for shape in SHAPES if shape.seen)
"""Classes with masks in the training file."""
UNSEEN_SHAPES: tuple[str, ...] = tuple(shape.name for shape in SHAPES if not shape.seen)
"""Classes with boxes only in the training file."""

_CATEGORY_ID = {shape.name: index + 1 for index, shape in enumerate(SHAPES)}
_SPLITS = ("train", "val")
_WORTH_PROCESSES = 200  # pictures; fewer are drawn before a process has started
_MARKER = "shapes.json"
_QUIET_SECONDS = 1.0
_OBJECTS_PER_IMAGE = 10  # annotation ids of an image start at ten times its id


@dataclass(frozen=True)
class _Settings:
    """What a written set depends on; its folder's marker."""

    version: int
    num_train: int
    num_val: int
    size: int
    seed: int
    difficulty: Difficulty

    def __post_init__(self) -> None:
        if self.num_train < 1 or self.num_val < 1:
            raise ConfigError(
                "The shapes data set needs num_train and num_val of at least 1, "
                f"got {self.num_train} and {self.num_val}."
            )
        if not 32 <= self.size <= 1024:
            raise ConfigError(f"The shapes data set needs a size of 32 to 1024, got {self.size}.")
        if self.seed < 0:
            raise ConfigError(f"The shapes data set needs a seed of at least 0, got {self.seed}.")
        if self.difficulty not in KNOBS:
            raise ConfigError(
                f"The shapes data set has no difficulty {self.difficulty!r}; "
                f"choose one of {', '.join(KNOBS)}."
            )

    @property
    def folder(self) -> str:
        """A name that differs wherever the settings do."""
        return (
            f"shapes-v{self.version}-{self.difficulty}-{self.size}px"
            f"-{self.num_train}+{self.num_val}-seed{self.seed}"
        )


def ensure_shapes(
    root: str | Path | None = None,
    *,
    num_train: int = 2000,
    num_val: int = 200,
    size: int = 128,
    seed: int = 0,
    difficulty: Difficulty = "default",
) -> Path:
    """The folder of the data set with these settings, written first where it does not exist.

    Args:
        root: folder that holds such data sets, one sub-folder for each combination of settings;
            by default the environment variable ``DEEPMAC_CACHE``, else ``~/.cache/deepmac``.
        num_train: training pictures.
        num_val: validation pictures.
        size: side of the square pictures in pixels.
        seed: other seeds give other pictures.
        difficulty: ``default``, ``hard`` (more camouflage, overlap, clutter and noise) or
            ``coats`` (kinds differ in colours, textures and parts as well as in outline).

    Returns:
        A folder with ``annotations/instances_{train,val}.json`` and ``images/*.jpg``.

    Raises:
        ConfigError: a setting out of range.
        DataError: a folder of that name exists and is no such data set, or cannot be written.
    """
    settings = _Settings(SHAPES_VERSION, num_train, num_val, size, seed, difficulty)
    folder = (Path(root) if root is not None else _default_cache()) / settings.folder
    if not _is_written(folder, settings):
        with _explained(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _waiting_for_others(folder):
                _write(folder, settings)
    return folder


def write_shapes(
    root: str | Path,
    *,
    num_train: int = 2000,
    num_val: int = 200,
    size: int = 128,
    seed: int = 0,
    difficulty: Difficulty = "default",
) -> None:
    """Write the data set into the folder ``root`` itself; arguments of :func:`ensure_shapes`.

    All or nothing: it is drawn in a folder beside and renamed at the end, so several processes may
    write it at once. Annotations and pixels depend on the settings alone, and a picture not even on
    their counts. A finished set with the same settings is left as it is.

    Raises:
        ConfigError: a setting out of range.
        DataError: ``root`` holds other files or other settings, or cannot be written.
    """
    settings = _Settings(SHAPES_VERSION, num_train, num_val, size, seed, difficulty)
    folder = Path(root)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(folder, settings)


def _default_cache() -> Path:
    configured = os.environ.get("DEEPMAC_CACHE")
    return (
        Path(os.path.expanduser(configured)) if configured else Path.home() / ".cache" / "deepmac"
    )


def _is_written(folder: Path, settings: _Settings) -> bool:
    """Whether the folder is this very data set; an error where it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = None
    if marker != asdict(settings):
        raise DataError(
            f"The folder {folder} is not the shapes data set with the wanted settings; "
            "delete it or choose another folder."
        )
    return True


def _write(folder: Path, settings: _Settings) -> None:
    sweep_drafts(folder.parent)
    if _is_written(folder, settings):
        return
    try:
        with folder_draft(folder, sync=False) as work:
            _draw_into(work, settings, shown_as=folder)
    except OSError:  # another process was faster, which is as good
        if not _is_written(folder, settings):
            raise


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"The shapes data set cannot be written to {folder} ({error}); "
            "choose another folder or set DEEPMAC_CACHE."
        ) from error


@contextmanager
def _waiting_for_others(folder: Path) -> Iterator[None]:
    """Let one process draw while the others wait; only saves work, the rename keeps it safe."""
    try:
        import fcntl
    except ImportError:  # Windows: every process draws
        yield
        return
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _draw_into(folder: Path, settings: _Settings, *, shown_as: Path) -> None:
    (folder / "images").mkdir()
    (folder / "annotations").mkdir()
    progress = _Progress(settings.num_train + settings.num_val, shown_as)
    for split, count in zip(_SPLITS, (settings.num_train, settings.num_val), strict=True):
        images, annotations = [], []
        for image, found, encoded in _make_images(settings, split, count):
            (folder / "images" / image["file_name"]).write_bytes(encoded)
            images.append(image)
            annotations.extend(found)
            progress.step()
        content = {
            "info": {"description": f"shapes {split}", "version": str(settings.version)},
            "categories": _categories(),
            "images": images,
            "annotations": annotations,
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    (folder / _MARKER).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    progress.finish()


def _make_images(
    settings: _Settings, split: str, count: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], bytes]]:
    """All pictures of a split in order, drawn by as many processes as there are cores."""
    make = partial(_make_image, settings, split)
    workers = min(8, os.cpu_count() or 1)
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    if count < _WORTH_PROCESSES or workers < 2 or not can_fork:
        yield from map(make, range(count))
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield from pool.imap(make, range(count), chunksize=16)


def _make_image(
    settings: _Settings, split: str, index: int
) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """COCO entry, annotations and JPEG bytes of one picture."""
    rng = np.random.default_rng([settings.seed, _SPLITS.index(split), index])
    pixels, objects = draw_picture(rng, size=settings.size, difficulty=settings.difficulty)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    image = {
        "id": index + 1,
        "file_name": f"{split}_{index + 1:06d}.jpg",
        "width": settings.size,
        "height": settings.size,
    }
    annotations = [
        _annotation(placed, image_id=index + 1, number=number, with_mask=split == "val")
        for number, placed in enumerate(objects)
    ]
    return image, annotations, buffer.getvalue()


def _annotation(
    placed: PlacedObject, *, image_id: int, number: int, with_mask: bool
) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(placed.visible, np.uint8))
    x, y, width, height = (int(value) for value in coco_mask.toBbox(rle))
    annotation: dict[str, Any] = {
        "id": image_id * _OBJECTS_PER_IMAGE + number,
        "image_id": image_id,
        "category_id": _CATEGORY_ID[placed.shape.name],
        "bbox": [x, y, width, height],
        "iscrowd": 0,
    }
    if with_mask or placed.shape.seen:
        annotation["area"] = int(placed.visible.sum())
        counts = rle["counts"].decode("ascii")
        annotation["segmentation"] = {"size": list(placed.visible.shape), "counts": counts}
    else:
        annotation["area"] = width * height  # the mask's area would be supervision
    return annotation


def _categories() -> list[dict[str, Any]]:
    return [
        {"id": _CATEGORY_ID[shape.name], "name": shape.name, "supercategory": shape.supercategory}
        for shape in SHAPES
    ]


class _Progress:
    """One line on the standard error for work of more than a second."""

    def __init__(self, total: int, folder: Path) -> None:
        self.total, self.folder = total, folder
        self.done, self.start, self.announced = 0, time.monotonic(), False

    def step(self) -> None:
        self.done += 1
        elapsed = time.monotonic() - self.start
        if not self.announced and elapsed > _QUIET_SECONDS:
            self.announced = True
            left = elapsed / self.done * (self.total - self.done)
            self._say(f"Drawing the shapes data set, {self.total} pictures, about {left:.0f} s ...")

    def finish(self) -> None:
        if self.announced:
            self._say(f"Wrote {self.folder} in {time.monotonic() - self.start:.0f} s.")

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

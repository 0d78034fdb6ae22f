"""Which annotation files the settings of the data mean, and reading them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from deepmac.class_map import ClassMap
from deepmac.data.annotations.coco import CocoIndex
from deepmac.data.annotations.layout import Found, Place, find, image_folder
from deepmac.data.annotations.locate import locate_coco
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.read_boxes import read_set
from deepmac.data.annotations.reading import Reading
from deepmac.data.file_parts import own_name
from deepmac.data.shapes.data_set import ensure_shapes
from deepmac.data.splits import masked_category_ids
from deepmac.data.stream.chunked import DEFAULT_CACHE_GB, read_chunked
from deepmac.errors import ConfigError, DataError

Split = Literal["train", "val", "predict"]
VAL_SHARE = 0.1
Settings = Mapping[str, Any]
"""Arguments of :class:`~deepmac.lightning.datamodule.CocoDataModule` by name."""


def data_folder(settings: Settings) -> Path:
    """The root that other paths are relative to; the generated set is drawn where it is missing.

    Raises:
        ConfigError: no setting says where the data is, or pictures would be drawn into it.
    """
    if settings.get("source") == "shapes":
        if settings["root"] is not None:
            _check_draws_nothing_into(Path(settings["root"]))
        return ensure_shapes(
            None if settings["root"] is None else Path(settings["root"]),
            num_train=settings["shapes_train"],
            num_val=settings["shapes_val"],
            size=settings["shapes_size"],
            difficulty=settings["difficulty"],
        )
    if settings.get("root") is None and settings.get("train_json") is None:
        raise ConfigError("data.root is not set: give the folder of the data set")
    return Path(os.path.expanduser(settings.get("root") or "."))


def _check_draws_nothing_into(root: Path) -> None:
    """Somebody's own data is not what generated pictures are put beside."""
    names = (entry.name.lstrip(".") for entry in root.iterdir()) if root.is_dir() else ()
    if any(not name.startswith("shapes-") for name in names):  # .shapes-...: the drawing's own lock
        raise ConfigError(
            f"data.root={root} holds other files, and this experiment draws pictures of its own: "
            "for your data add data=coco or experiment=custom, else leave data.root out"
        )


def read_annotations(settings: Settings, split: Split) -> CocoIndex:
    """Read and check a set.

    Without a set for validation a share of the training images is held out for it: those whose
    names have the smallest digests, so that more images move none.

    Raises:
        DataError: a file is missing or faulty.
    """
    if settings.get("source") == "stream":
        return _read_chunked(settings, split)
    place, held_out = locate(settings, split)
    index = read_set(
        place,
        on_error=settings.get("on_error") or "stop",
        check_images=settings.get("check_images") or "header",
        require_annotations=split != "predict",
        reading=reading_of(settings, split),
    )
    source = (
        f"{place.format}: {', '.join(map(str, place.paths[:3]))}, pictures in {place.image_dir}"
    )
    notes = (
        Problem("file not read", text, place.paths[0], is_note=True) for text in place.left_out
    )
    index = replace(index, source=place.why or source, problems=(*index.problems, *notes))
    if not held_out:
        return index
    chosen = _held_out(index, settings.get("val_share", VAL_SHARE))
    is_val = split != "train"
    kept = index.at([i for i in range(len(index.images)) if (i in chosen) == is_val])
    text = (
        f"{place.paths[0]}: no set for validation was found, so {len(chosen)} of its "
        f"{len(index.images)} images are held out; data.val_share=0 trains on all."
    )
    note = Problem("validation set held out", text, place.paths[0], is_note=True)
    return replace(kept, problems=(*index.problems, note))


def _read_chunked(settings: Settings, split: Split) -> CocoIndex:
    """A split of a sharded set; what is evaluated has all annotations at hand."""
    root = settings.get("root")
    if root is None:
        raise ConfigError("data.root is not set: give the folder or URL that was sharded to")
    return read_chunked(
        str(root),
        "train" if split == "train" else "val",
        whole=split != "train",
        cache_gb=settings.get("cache_gb") or DEFAULT_CACHE_GB,
    )


def reading_of(settings: Settings, split: Split) -> Reading:
    """What the settings say of what annotation files leave open; evaluations are exhaustive."""
    names = ["rectangle_masks", "crowds", "mismatched_masks"]
    names += ["exhaustive"] if split == "train" else []
    return Reading(**{n: settings[n] for n in names if settings.get(n) is not None})


def read_classes(
    settings: Settings,
    train: CocoIndex | None,
    val: CocoIndex | None,
    predict: CocoIndex | None,
) -> ClassMap:
    """Classes of the training set, and which of them have masks.

    Args:
        settings: of the data.
        train: what has been read already, as the others.
        val: gives the classes where there is no training set: in an evaluation alone, where a
            checkpoint's own replace them anyway.
        predict: the last resort.

    Raises:
        ConfigError: ``masked_classes`` names what the data does not have.
        DataError: the training set is faulty.
    """
    source = train
    if source is None and settings.get("source") == "stream":
        source = _read_chunked(settings, "train")
    if source is None:
        try:
            place, _ = locate(settings, "train")
        except DataError:
            source = val or predict
        else:
            source = read_set(
                place, on_error="drop", check_images="none", reading=reading_of(settings, "train")
            )
    assert source is not None
    masked = masked_category_ids(settings["masked_classes"], source)
    return ClassMap.from_categories(source.categories, masked)


def locate(settings: Settings, split: Split) -> tuple[Place, bool]:
    """Where a set lies, and whether it is a share of the training set.

    Predicting without a json takes validation's.

    Raises:
        DataError: nothing there.
    """
    name = "val" if split == "predict" else split
    share = settings.get("val_share", VAL_SHARE)
    own = _own(settings, split, name)
    if name == "train" and own is not None:
        alone = settings.get("source") != "shapes" and _own(settings, "val", "val") is None
        return own, share > 0 and alone
    if own is None and name == "val" and (share > 0 or split == "predict"):
        own = _own(settings, "train", "train")
        if own is not None:
            return own, split != "predict"
    if own is not None:
        return own, False
    root, wanted = data_folder(settings), settings.get("format") or "auto"
    raise DataError(
        f"{found_in(root, wanted)}: it has no set for {name}; add one, or name its file with "
        f"data.{name}_json."
    )


def _own(settings: Settings, split: Split, name: str) -> Place | None:
    """The place of a set's own annotations; None where it has none.

    Raises:
        DataError: a file that the settings name is missing, or nothing is known of the folder.
    """
    root, images = data_folder(settings), settings.get("image_dir")
    if name == "val" and settings.get("val_image_dir") is not None:
        images = settings["val_image_dir"]
    json = settings.get(f"{split}_json")
    json = json or (settings.get("val_json") if split == "predict" else None)
    if json is not None or settings.get("source") == "shapes":
        return _named(root, name, json, images)
    wanted = settings.get("format") or "auto"
    usual: DataError | None = None
    if wanted in ("auto", "coco"):
        try:
            return Place("coco", *_as_paths(locate_coco(root, name, image_dir=images)))
        except DataError as error:
            usual = error
    if name == "val" and settings.get("train_json") is not None:
        return None
    try:
        sets = found_in(root, wanted).sets
    except DataError:
        if usual is not None and (root / "annotations").is_dir():
            raise usual from None
        raise
    own = sets.get(name) or (sets.get("all") if name == "train" else None)
    if own is not None and images is not None:
        own = replace(own, image_dir=_folder(root, images))
    return own


@cache
def found_in(root: Path, wanted: str) -> Found:
    """What a folder holds; looked at once a process."""
    return find(root, wanted)


def _named(root: Path, name: str, json: Any, images: Any) -> Place:
    """A json that the settings name, or the usual place's."""
    try:
        return Place("coco", *_as_paths(locate_coco(root, name, json=json, image_dir=images)))
    except DataError:
        if json is None or images is not None:
            raise
    path = next((p for p in (root / json, Path(json)) if p.is_file()), None)
    if path is None:
        raise DataError(f"the annotation file {json} does not exist; check the path.")
    return Place("coco", (path,), image_folder(root, path, name))


def _as_paths(located: tuple[Path, Path]) -> tuple[tuple[Path, ...], Path]:
    return (located[0],), located[1]


def _folder(root: Path, given: Any) -> Path:
    path = Path(os.path.expanduser(given))
    return root / path if (root / path).is_dir() else path


def _held_out(index: CocoIndex, share: float) -> frozenset[int]:
    """Positions of the images with the smallest digests of their names; at least one stays."""
    names = [own_name(index.table.name(i)) for i in range(len(index.images))]
    digests = [sha256(name.encode("utf-8", "replace")).digest() for name in names]
    order = sorted(range(len(names)), key=digests.__getitem__)
    number = max(1, round(share * len(names))) if len(names) > 1 else 0
    return frozenset(order[: min(number, len(names) - 1)])

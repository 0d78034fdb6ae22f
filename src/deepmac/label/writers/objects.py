"""What the writers draw on: outlines, masks and names of the objects of an image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deepmac.data.annotations.pictures import is_file
from deepmac.data.annotations.segmentation import find_fault, is_absent, segmentation_rle
from deepmac.data.file_parts import part_of
from deepmac.files import copy_file
from deepmac.label.masks.polygons import Ring, joined, mask_polygons
from deepmac.label.merge import Labelled

Record = dict[str, Any]
Size = tuple[int, int]

LEFT_OUT = "objects without a mask, left out"


def rings_of(entry: dict[str, Any], record: Record | None, size: Size | None) -> list[Ring]:
    """The outlines of an object, ours or those it had; [] where it has none."""
    if size is None:
        return []
    if record is not None:
        return [np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in record["polygons"]]
    rle, raw = own_mask(entry, size), entry.get("segmentation")
    if rle is None:
        return []
    if isinstance(raw, list):
        return [np.array(ring, dtype=np.float64).reshape(-1, 2) for ring in raw]
    return mask_polygons(rle)


def outline_of(entry: dict[str, Any], record: Record | None, size: Size | None) -> Ring | None:
    """One polygon for an object, its parts linked by seams; None where it has no mask."""
    rings = rings_of(entry, record, size)
    return joined(rings) if rings else None


def mask_of(
    entry: dict[str, Any], record: Record | None, size: Size | None
) -> Mapping[str, Any] | None:
    """The run lengths of an object's mask, ours or the one it had."""
    return record["rle"] if record is not None else own_mask(entry, size)


def own_mask(entry: dict[str, Any], size: Size | None) -> Mapping[str, Any] | None:
    """The annotation's own mask, where it can be read and is of one object."""
    raw = entry.get("segmentation")
    if size is None or is_absent(raw) or entry.get("iscrowd"):
        return None
    if find_fault(raw, size[1], size[0]):
        return None
    rle: Mapping[str, Any] = segmentation_rle(raw, size[1], size[0])  # type: ignore[arg-type]
    return rle


def file_stems(labelled: Labelled) -> dict[Any, str]:
    """A relative path for each image id: the file's own, kept inside the folder, never twice."""
    names: dict[Any, str] = {}
    taken: set[str] = set()
    for image in labelled.by_image():
        parts = PurePosixPath(str(image.entry["file_name"]).replace("\\", "/")).parts
        inner = [safe(part) for part in parts if part not in ("/", "..", ".")]
        name = str(PurePosixPath(*inner).with_suffix("")) if inner else "image"
        if name in taken:
            name = f"{name}-{safe(str(image.entry['id']))}"
        taken.add(name)
        names[image.entry["id"]] = name
    return names


def safe(word: str) -> str:
    """A word that is one name in any file system."""
    kept = "".join(c if c.isalnum() or c in "-_. " else "_" for c in word).strip(". ")
    return kept.encode("utf-8", "replace").decode("utf-8")[:200] or "_"


def place_picture(picture: Path, place: Path, *, link: bool = False) -> bool:
    """Bring a picture to its place in the output.

    Args:
        picture: the user's.
        place: of a file that does not exist yet.
        link: as a second name of the same file, so that an edit of one is an edit of both; a copy
            where the file system cannot.

    Returns:
        Whether it is there: a picture that is missing has no place.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if (part := part_of(picture)) is not None:
        place.write_bytes(part.read())
        return True
    if not is_file(picture):
        return False
    source = picture.resolve()
    if link:
        with suppress(OSError):
            os.link(source, place)
            return True
    copy_file(source, place)
    return True

"""Reading a COCO annotation file: everything is checked, nothing is left out silently."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deepmac.data.annotations import store
from deepmac.data.annotations.coco_reader import CocoReader
from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.json_file import (
    PackedList,
    Unpackable,
    parse_leniently,
    parse_lists,
    read_file,
)
from deepmac.data.annotations.naming import of_json
from deepmac.data.annotations.pictures import spelled
from deepmac.data.annotations.plain import Irregular, read_plain
from deepmac.data.annotations.problems import Problem, describe_kinds, stop_message
from deepmac.data.annotations.reading import CheckImages, OnError, Reading
from deepmac.data.annotations.records import (
    Category,
    ImageRecord,
    Instance,
    decode_mask,
    instance_rle,
)
from deepmac.data.annotations.table import TableImages
from deepmac.data.file_parts import stamp_of
from deepmac.data.images import ImageFileError, check_image
from deepmac.errors import DataError

__all__ = [
    "Category",
    "CheckImages",
    "CocoIndex",
    "ImageRecord",
    "Instance",
    "OnError",
    "Problem",
    "UnusableSet",
    "decode_mask",
    "index_of",
    "instance_rle",
    "read_coco",
]

LISTS = ("images", "annotations", "categories")
_FILES_PER_TASK = 256


class UnusableSet(DataError):
    """A set with nothing to learn from.

    Attributes:
        problems: what became of its content.
        index: what is left, if that is known.
    """

    def __init__(
        self, message: str, problems: Sequence[Problem] = (), index: CocoIndex | None = None
    ) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.index = index


def read_coco(
    json_path: str | Path,
    image_dir: str | Path,
    *,
    on_error: OnError = "stop",
    check_images: CheckImages = "header",
    require_annotations: bool = True,
    reading: Reading | None = None,
) -> CocoIndex:
    """Read and check an annotation file in the COCO format.

    Boxes that leave the image are clipped, masks without a pixel become boxes without a mask; both
    are notes. Faults of the categories or of the file as a whole always stop. What was parsed is
    kept in the cache (``DEEPMAC_CACHE``) as arrays that all processes share.

    Args:
        json_path: the annotation file.
        image_dir: folder that the ``file_name`` entries start from.
        on_error: "stop" raises one error that names the first fault and counts the others;
            "drop" leaves out faulty images (with their annotations), annotations and masks, and
            counts them (show ``index.dropped_summary()``). A fault of the mask alone keeps the
            box, so that the object does not turn into background.
        check_images: "none"; "header": each file exists, has the annotated size and is not cut
            off; "full": every image and every mask is decoded. "drop" checks at least headers.
        require_annotations: False accepts a file without ``annotations`` (COCO's image_info) and
            a set without objects.
        reading: what the file leaves open.

    Raises:
        DataError: one sentence with file, ids and what to do.
    """
    json_path, image_dir = Path(json_path), Path(image_dir)
    if not image_dir.is_dir():
        raise DataError(
            f"the image folder {image_dir} of {json_path} does not exist; check the path."
        )
    reading = reading or Reading()
    if check_images == "full":
        reading = replace(reading, exact_masks=True)
    place = store.place(json_path, reading, require_annotations)
    parsed = store.load(place) if place else None
    if parsed is None:
        with _no_garbage_collection():
            parsed, may_keep = _parse(json_path, image_dir, reading, require_annotations)
        if place and may_keep:
            parsed = store.keep(place, parsed)
        _give_back_memory()
    index = parsed.index(json_path, image_dir)
    return _finish(index, on_error, check_images, require_annotations)


Lists = Callable[[], tuple[Mapping[str, Any], Sequence[Problem]]]
"""Gives the lists ``images``, ``annotations``, ``categories``, and what their reader has found."""


def index_of(
    content: Mapping[str, Any] | Lists,
    path: Path,
    image_dir: Path,
    *,
    place: Path | None = None,
    on_error: OnError = "stop",
    check_images: CheckImages = "header",
    require_annotations: bool = True,
    reading: Reading | None = None,
) -> CocoIndex:
    """The same from lists that a reader of another format has made, or makes when it is asked.

    Args:
        content: with the lists ``images``, ``annotations`` and ``categories``.
        path: of the file or folder that they come from, for messages.
        image_dir: folder that the ``file_name`` entries start from.
        place: in the cache, see :func:`deepmac.data.annotations.store.place_of_files`.
        on_error: as the others, see :func:`read_coco`.
        check_images: see there.
        require_annotations: see there.
        reading: see there.
    """
    reading = reading or Reading()
    if check_images == "full":
        reading = replace(reading, exact_masks=True)
    parsed = store.load(place) if place else None
    if parsed is None:
        lists, problems = content() if callable(content) else (content, ())
        parsed = _read(lists, path, image_dir, reading).parsed()
        parsed = replace(parsed, problems=(*problems, *parsed.problems))
        if place:
            parsed = store.keep(place, parsed)
    return _finish(parsed.index(path, image_dir), on_error, check_images, require_annotations)


def _finish(
    index: CocoIndex, on_error: OnError, check_images: CheckImages, require_annotations: bool
) -> CocoIndex:
    if on_error == "drop" and check_images == "none":
        check_images = "header"
    index = _check_files(index, check_images)
    errors = [problem for problem in index.problems if not problem.is_note]
    if errors and on_error == "stop":
        raise UnusableSet(stop_message(errors), index.problems)
    _require_content(index, require_annotations)
    return index


def _parse(
    json_path: Path, image_dir: Path, reading: Reading, require_annotations: bool
) -> tuple[store.Parsed, bool]:
    data = read_file(json_path)
    try:
        content = parse_lists(json_path, data, LISTS)
        return _parse_content(content, json_path, image_dir, reading, require_annotations)
    except Unpackable:
        content = parse_leniently(json_path, data)
        return _parse_content(content, json_path, image_dir, reading, require_annotations)


def _parse_content(
    content: Any, json_path: Path, image_dir: Path, reading: Reading, require_annotations: bool
) -> tuple[store.Parsed, bool]:
    wanted = ["images", "categories"]
    if require_annotations or (isinstance(content, dict) and "annotations" in content):
        wanted.append("annotations")
    for key in wanted:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list | PackedList):
            named = of_json(content)
            advice = "give a file with the lists images, annotations and categories."
            advice = f"it looks like {named}." if named else advice
            raise DataError(
                f"{json_path} is JSON but not a COCO annotation file: it has no list "
                f'"{key}"; {advice}'
            )
    reader = _read(content, json_path, image_dir, reading)
    parsed = reader.parsed()
    may_keep = not reader.sizes_from_files
    return parsed, may_keep


def _read(content: Mapping[str, Any], path: Path, image_dir: Path, reading: Reading) -> CocoReader:
    annotations = content.get("annotations") or []

    def begin() -> CocoReader:
        reader = CocoReader(path, reading)
        reader.read_categories(list(content["categories"]))
        reader.read_images(content["images"], image_dir)
        return reader

    reader = begin()
    if isinstance(annotations, PackedList) and not reader.own_ids:
        try:
            read_plain(annotations, reader)
            return reader
        except Irregular:
            reader = begin()
    reader.read_annotations(annotations)
    return reader


def _check_files(index: CocoIndex, check_images: CheckImages) -> CocoIndex:
    """The index without the images whose files are unusable; other spellings are found."""
    assert isinstance(index.images, TableImages)
    images: TableImages = index.images
    if check_images == "none" and not images.table.has_odd_names():
        return index
    listed, decode = images, check_images == "full"
    table, folder = images.table, os.fspath(images.image_dir)
    columns = [table.__dict__[c] for c in ("name_bytes", "name_start", "name_count")]
    columns += [table.width, table.height]
    digests = [sha256(c.tobytes()).hexdigest() for c in columns]
    known = store.CheckedFiles(repr((os.path.abspath(folder), check_images, digests)), len(table))
    tasks = [range(i, min(i + _FILES_PER_TASK, len(images)))
             for i in range(0, len(images), _FILES_PER_TASK)]  # fmt: skip

    def task(positions: range) -> list[tuple[int, str | ImageFileError]]:
        found: list[tuple[int, str | ImageFileError]] = []
        for position in positions:
            name = known.names.get(position) or table.name(position)
            stamp = stamp_of(os.path.join(folder, name))
            if known.is_known(position, stamp):
                if position in known.names:
                    found.append((position, name))
                continue
            one = _check_file(listed, position, check_images, decode)
            if one is not None:
                found.append(one)
                if isinstance(one[1], ImageFileError):
                    continue
                stamp = stamp_of(os.path.join(folder, one[1]))
            known.remember(position, stamp)
        return found

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        found = [pair for result in pool.map(task, tasks) for pair in result]
    names = {p: what for p, what in found if isinstance(what, str)}
    faults = [(p, what) for p, what in found if isinstance(what, ImageFileError)]
    if check_images != "none":
        known.keep(names)
    if names:
        images = TableImages(images.table.renamed(names), images.image_dir)
        index = replace(index, images=images)
    missing = sum(error.kind == "missing image" for _, error in faults)
    if len(images) and missing == len(images):
        raise DataError(
            f"none of the {missing} images of {index.json_path} is in {index.image_dir} (looked "
            f"for {images.table.name(0)} and the others); check the image folder."
        )
    if not faults:
        return index
    problems = list(index.problems)
    dropped = dict(index.dropped)
    for position, error in faults:
        identity = int(images.table.image_id[position])
        shown = index.text_ids.get(identity, identity)
        message = f"{str(error)[:-1]} (image {shown} of {index.json_path})."
        path = images.image_dir / images.table.name(position)
        problems.append(Problem(error.kind, message, path, identity))
        dropped["images"] += 1
        dropped["annotations"] += int(images.table.row_count[position])
    kept = np.setdiff1d(np.arange(len(images)), [position for position, _ in faults])
    left = images.at(kept.tolist())
    return replace(index, images=left, problems=tuple(problems), dropped=dropped)


def _check_file(
    images: TableImages, position: int, check_images: CheckImages, decode: bool
) -> tuple[int, str | ImageFileError] | None:
    table, folder = images.table, images.image_dir
    name = table.name(position)
    if check_images == "none":
        better = spelled(folder, name)
        return (position, better) if better not in (None, name) else None  # type: ignore
    size = int(table.width[position]), int(table.height[position])
    try:
        check_image(folder / name, size, decode=decode)
        return None
    except ImageFileError as error:
        if error.kind != "missing image":
            return position, error
        better = spelled(folder, name)
        if better is None:
            return position, error
    try:
        check_image(folder / better, size, decode=decode)
        return position, better
    except ImageFileError as error:
        return position, error


def _require_content(index: CocoIndex, require_annotations: bool) -> None:
    errors = [problem for problem in index.problems if not problem.is_note]
    after = describe_kinds(errors)
    after = f" after leaving out what is faulty ({after})" if after else ""
    first = f", such as: {errors[0].message}" if errors else "; check the file."
    if not index.images:
        text = f"{index.json_path} has no images{after}{first}"
        raise UnusableSet(text, index.problems, index)
    if require_annotations and not index.table.is_object.any():
        text = f"{index.json_path} has no annotated objects{after}{first}"
        raise UnusableSet(text, index.problems, index)


def _give_back_memory() -> None:
    """What parsing has freed, to the system: the allocator would keep half a gigabyte."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of live lists make each collection a full scan: reading takes twice as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

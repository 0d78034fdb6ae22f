"""Pascal VOC's folder of xml files, one for each picture, and its masks of single objects."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from defusedxml import ElementTree  # entities are the one part of XML that can hurt
from defusedxml.common import DefusedXmlException
from pycocotools import mask as coco_mask

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.doubts import overlap
from deepmac.data.annotations.pictures import is_file, list_pictures, picture_sizes, walk_files
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.text_file import read_bytes
from deepmac.data.images import ImageFileError, open_image, raw_size
from deepmac.errors import DataError

_FLAGS = ("pose", "truncated", "difficult", "occluded")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_VOID = 255
_SAME_OBJECT = 0.5


def read(folder: Path, image_dir: Path, *, only: frozenset[str] | None = None) -> BoxFile:
    """Read a VOC folder; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    A file's picture is the one of the same relative path, or else the one it names, in the folder
    that it names. Coordinates are VOC's: pixels counted from 1, the last one inside, so that the
    box covers [xmin - 1, xmax] x [ymin - 1, ymax]. Categories are numbered from 1 in the
    alphabetical order of their names, images and boxes in the order of their files. ``pose``,
    ``truncated``, ``difficult`` and ``occluded`` are kept as keys of the annotation. Masks come
    from ``SegmentationObject/`` beside the folder, each for the object whose box is its own.

    Args:
        folder: of the xml files.
        image_dir: of the pictures.
        only: stems of the files to read; None: all.

    Raises:
        DataError: no pictures, or none that an xml file belongs to.
    """
    digest = hashlib.sha256()
    lacking = set(only or ())
    pictures = _Pictures(list_pictures(image_dir))
    problems: list[Problem] = []
    entries: list[tuple[Path, str, Element]] = []
    claimed: dict[str, list[Path]] = {}
    for name in walk_files(folder):
        path = folder / name
        if path.suffix.lower() != ".xml" or (only is not None and path.stem not in only):
            continue
        lacking.discard(path.stem)
        data = read_bytes(path)
        digest.update(name.encode("utf-8", "replace") + b"\0" + data)
        root = _parse(path, data, problems)
        if root is None:
            continue
        picture = pictures.of(Path(name).with_suffix("").as_posix(), root)
        if not isinstance(picture, str):
            wanted = " or ".join(sorted({Path(name).stem + ".*", _named(root)} - {""}))
            text = f"{path} has no picture {wanted} in {image_dir}; add it."
            if picture:
                text = f"{path} may belong to {' or '.join(picture)}; give it the picture's name."
            problems.append(Problem("missing image", text, path))
            continue
        claimed.setdefault(picture, []).append(path)
        entries.append((path, picture, root))
    if lacking:
        text = f"{folder} has no xml file for {len(lacking)} names of the set's list, such as "
        text += f"{min(lacking)!r:.60}; their pictures are left out."
        problems.append(Problem("missing xml", text, folder, is_note=True))
    for picture, paths in claimed.items():
        if len(paths) > 1:
            text = f"{' and '.join(map(str, paths[:3]))} all say that they are of {picture}; "
            text += "none of them is read, correct their names."
            problems.append(Problem("picture claimed twice", text, paths[0]))
    entries = [entry for entry in entries if len(claimed[entry[1]]) == 1]
    if not entries:
        first = f": {problems[0].message}" if problems else "; check the folders."
        raise DataError(f"no xml file in {folder} belongs to a picture in {image_dir}{first}")
    sizes = picture_sizes([image_dir / picture for _, picture, _ in entries])
    places = [place / "SegmentationObject" for place in (folder.parent, folder)]
    masks = next((place for place in places if place.is_dir()), places[0])
    made = ContentBuilder()
    for (path, picture, root), size in zip(entries, sizes, strict=True):
        where = image_dir / picture
        if isinstance(size, ImageFileError):
            number = made.add_image(picture, None)
            problems.append(Problem(size.kind, str(size), where, number))
            continue
        checked = _checked_size(root, where, size)
        if isinstance(checked, str):
            text = f"{path} {checked}; its boxes cannot be placed, correct the file."
            problems.append(Problem("wrong image size", text, path))
            continue
        number = made.add_image(picture, checked)
        objects = _objects(path, root, problems)
        _add_masks(objects, masks, path.stem, checked, problems)
        for found in objects:
            made.add(number, found.pop("name"), **found)
    return BoxFile(folder, "voc", made.content(), digest.hexdigest(), problems)


class _Pictures:
    """Pictures by what xml files call them."""

    def __init__(self, names: list[str]) -> None:
        self.by_path = {str(Path(name).with_suffix("")): name for name in names}
        self.by_name: dict[str, list[str]] = {}
        for name in names:
            self.by_name.setdefault(Path(name).name, []).append(name)
            self.by_name.setdefault(Path(name).stem, []).append(name)

    def of(self, stem: str, root: Element) -> str | list[str] | None:
        """The picture of a file, the several that it may be, or None."""
        if stem in self.by_path:
            return self.by_path[stem]
        named = _named(root)
        for word in (named, Path(named).stem if named else "", Path(stem).name):
            found = self.by_name.get(word, [])
            if len(found) > 1:
                found = self._in_folder(found, root)
            if len(found) == 1:
                return self._checked(found[0], root)
            if found:
                return found
        return None

    def _in_folder(self, found: list[str], root: Element) -> list[str]:
        text = (root.findtext("path") or "").replace("\\", "/").strip()
        by_path = [name for name in found if text.endswith("/" + name) or text == name]
        if len(by_path) == 1:
            return by_path
        inner = (root.findtext("filename") or "").replace("\\", "/").strip().strip("/")
        folder = (root.findtext("folder") or "").replace("\\", "/").strip().strip("/")
        for ending in (inner, f"{folder}/{Path(inner).name}"):
            own = [n for n in found if n == ending or n.endswith("/" + ending)]
            own += [n for n in found if str(Path(n).with_suffix("")) == ending]
            if len(own) == 1:
                return own
        return found

    def _checked(self, name: str, root: Element) -> str | None:
        """The only picture of a name, unless the file names the folder of another."""
        inner = (root.findtext("filename") or "").replace("\\", "/").strip()
        given = Path(inner).parent.name
        return None if given and Path(name).parent.name not in ("", given) else name


def _named(root: Element) -> str:
    return Path((root.findtext("filename") or "").replace("\\", "/").strip()).name


def _parse(path: Path, data: bytes, problems: list[Problem]) -> Element | None:
    try:
        root: Element = ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        text = f"{path} declares entities; remove its DOCTYPE."
        problems.append(Problem("malformed xml", text, path))
        return None
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        problems.append(Problem("malformed xml", f"{path} is no XML ({error}); mend it.", path))
        return None
    return root


def _checked_size(root: Element, picture: Path, turned: tuple[int, int]) -> tuple[int, int] | str:
    """The size that the boxes are of, which tells whether the EXIF turn was seen; or the fault."""
    try:
        width, height = (int(float(root.findtext(f"size/{k}") or 0)) for k in ("width", "height"))
    except (ValueError, OverflowError):
        return turned
    if min(width, height) < 1 or (width, height) == turned:
        return turned
    if (width, height) == raw_size(picture):
        return width, height
    return f"says {width} x {height} pixels, but {picture} has {turned[0]} x {turned[1]}"


def _objects(path: Path, root: Element, problems: list[Problem]) -> list[dict[str, Any]]:
    objects = []
    for number, item in enumerate(root.iter("object"), start=1):
        name = (item.findtext("name") or "").strip()
        try:
            corners = [float(item.findtext(f"bndbox/{k}") or "") for k in _CORNERS]
        except ValueError:
            corners = [math.nan]
        if not name or not all(map(math.isfinite, corners)):
            message = f"{path}: object number {number} has no name or no bndbox of four numbers."
            problems.append(Problem("malformed box", message, path))
            continue
        left, top, right, bottom = corners
        box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
        flags = {k: text for k in _FLAGS if (text := item.findtext(k)) is not None}
        objects.append({"name": name, "bbox": box, "iscrowd": 0, **flags})
    return objects


def _add_masks(
    objects: list[dict[str, Any]],
    folder: Path,
    stem: str,
    size: tuple[int, int],
    problems: list[Problem],
) -> None:
    """Give each object the mask in ``SegmentationObject`` whose own box is the object's."""
    path = folder / f"{stem}.png"
    if not objects or not is_file(path):
        return
    try:
        with open_image(path) as image:
            if image.size != size:
                text = f"{path} has {image.size[0]} x {image.size[1]} pixels, its picture "
                text += f"{size[0]} x {size[1]}; correct it."
                problems.append(Problem("wrong mask size", text, path))
                return
            values = np.asarray(image if image.mode in ("P", "L") else image.convert("L"))
    except ImageFileError as error:
        problems.append(Problem(error.kind, str(error), path))
        return
    free = dict(enumerate(objects))
    for value in np.unique(values).tolist():
        if value in (0, _VOID):
            continue
        rle = coco_mask.encode(np.asfortranarray(values == value).astype(np.uint8))
        x, y, w, h = coco_mask.toBbox(rle).tolist()
        scores = {}
        for number, entry in free.items():
            bx, by, bw, bh = entry["bbox"]
            scores[number] = overlap((x, y, x + w, y + h), (bx, by, bx + bw, by + bh))
        best = max(scores, key=scores.__getitem__, default=None)
        if best is None or scores[best] < _SAME_OBJECT:
            continue
        counts = rle["counts"].decode("ascii")
        free.pop(best)["segmentation"] = {"size": list(rle["size"]), "counts": counts}

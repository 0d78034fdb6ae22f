"""YOLO's text files: a line an object, numbers relative to the picture.

Read here and not by a library: the common readers open every picture fully, drop the sixth number,
take key points and turned boxes for outlines, and read ``names: [yes, no]`` as truth values.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deepmac.data.annotations.box_file import BoxFile, ContentBuilder
from deepmac.data.annotations.pictures import (
    is_file,
    is_folder,
    list_pictures,
    picture_sizes,
    walk_files,
)
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.text_file import read_text, read_yaml
from deepmac.data.images import ImageFileError
from deepmac.errors import DataError

Kind = Literal["auto", "boxes", "outlines", "turned", "points"]
"""What a line of more than six numbers is; ``auto`` looks at all of them."""

_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt", "_darknet.labels", "labels.txt")
_NOT_LABELS = (*_LISTS, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt",
               "requirements.txt", "trainval.txt")  # fmt: skip
_LARGEST_NUMBER = 1e6
_SQUARE = 0.02  # cosine of a turned box's angles
_NEARLY_ALL, _SOME = 0.9, 0.1  # of a set's lines: the others are mistakes; reason to ask


@dataclass(frozen=True)
class Described:
    """What ``data.yaml`` or a list of names says.

    Attributes:
        path: of the file, or None.
        names: class number -> name.
        point_numbers: numbers of key points that follow each box; 0: none.
        sets: "train", "val", "test" -> the entries as written.
        root: what relative entries start from.
    """

    path: Path | None = None
    names: dict[int, str] = field(default_factory=dict)
    point_numbers: int = 0
    sets: dict[str, list[str]] = field(default_factory=dict)
    root: Path = Path()


def describe(folder: Path) -> Described:
    """The description in a folder, or the nearest above it (two at most).

    Raises:
        DataError: there is one, but it makes no sense.
    """
    folder = folder.absolute()
    for place in (folder, folder.parent, folder.parent.parent):
        try:
            found = sorted(p for p in place.iterdir() if p.is_file() and p.name[0] != ".")
        except OSError:
            continue
        yamls = [p for p in found if p.suffix.lower() in (".yaml", ".yml")]
        yamls.sort(key=lambda p: p.stem not in ("data", "dataset"))
        for path in yamls:
            named = path.stem in ("data", "dataset")
            try:
                content = read_yaml(path)
            except DataError:
                if named:
                    raise
                continue
            if "names" in content or named:
                return _described(path, content)
        for path in found:
            if path.name in _LISTS:
                lines = read_text(path).splitlines()
                names = {n: line.strip() for n, line in enumerate(lines) if line.strip()}
                return Described(path, names, root=place)
    return Described()


def _described(path: Path, content: dict[str, Any]) -> Described:
    raw = content.get("names")
    fault = DataError(f'{path} has no list of class "names"; correct or remove it.')
    if isinstance(raw, list):
        pairs: Iterable[tuple[Any, Any]] = enumerate(raw)
    elif isinstance(raw, dict):
        pairs = raw.items()
    else:
        raise fault
    names = {}
    for key, name in pairs:
        number = _whole(key)
        if number is None or not isinstance(name, str):
            raise fault
        names[number] = name
    shape = content.get("kpt_shape")
    numbers = 0
    if shape not in (None, "", "null", "~", []):
        pair = [_whole(value) for value in shape] if isinstance(shape, list) else []
        if len(pair) != 2 or not pair[0] or pair[0] < 0 or pair[1] not in (2, 3):
            raise DataError(
                f"{path}: kpt_shape is {shape!r:.40}; it is the number of key points and 2 or 3 "
                "numbers for each, such as [17, 3]; correct or remove it."
            )
        numbers = pair[0] * pair[1]
    sets = {}
    for split in ("train", "val", "test"):
        entries = content.get(split)
        entries = [entries] if isinstance(entries, str) else entries
        if isinstance(entries, list):
            sets[split] = [e for e in entries if isinstance(e, str) and e.strip()]
    root = path.parent
    if isinstance(content.get("path"), str):
        given = Path(os.path.expanduser(content["path"]))
        root = next((p for p in (root / given, given) if is_folder(p)), root)
    return Described(path, names, numbers, sets, root)


def read(
    folder: Path,
    image_dir: Path,
    *,
    kind: Kind = "auto",
    pictures: list[str] | None = None,
) -> BoxFile:
    """Read a YOLO folder; see :func:`deepmac.data.annotations.read_boxes.read_boxes`.

    A picture's boxes lie in the text file of the same relative path, apart from folders that are
    called ``images`` and ``labels``; a picture without one has no objects. Five numbers are a box,
    six a box and its score. More are an outline that a person drew, a box and its key points where
    ``data.yaml`` has a ``kpt_shape``, or the four corners of a turned box where all lines of the
    set have eight numbers and right angles. Category ids are YOLO's class numbers.

    Args:
        folder: of the text files.
        image_dir: of the pictures.
        kind: what lines of more than six numbers are.
        pictures: the set, relative to ``image_dir``; None: all that there are.

    Raises:
        DataError: no pictures, or text files that belong to none of them.
    """
    digest = hashlib.sha256()
    about = describe(folder)
    if about.path is not None:
        digest.update(read_text(about.path).encode("utf-8", "replace"))
    labels = _labels(folder)
    every = list_pictures(image_dir) if pictures is None else pictures
    problems: list[Problem] = []
    own, twice = _assign(every, labels)
    if pictures is None:
        claimed = set(own.values()) | twice.keys()
        problems += [
            Problem("missing image", f"{p} has no picture {k}.* in {image_dir}; add it.", p)
            for k, p in labels.items()
            if p not in claimed
        ]
    for path, names in twice.items():
        text = f"{path} belongs to {' and '.join(names)}; rename all but one of these pictures."
        problems.append(Problem("picture claimed twice", text, path))
    if not own:
        raise DataError(
            f"none of the {len(labels)} text files in {folder} belongs to a picture in "
            f"{image_dir}: both need the same names; check the folders."
        )
    sizes = picture_sizes([image_dir / picture for picture in every])
    made = ContentBuilder()
    lines: list[_Line] = []
    for picture, size in zip(every, sizes, strict=True):
        digest.update(picture.encode("utf-8", "replace"))
        label = own.get(picture)
        known = None if isinstance(size, ImageFileError) else size
        number = made.add_image(picture, known)
        if isinstance(size, ImageFileError):
            problems.append(Problem(size.kind, str(size), image_dir / picture, number))
        if label is None:
            continue
        text = read_text(label)
        digest.update(text.encode("utf-8", "replace"))
        if known is None:
            continue
        for line_number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            found = _numbers(line)
            if isinstance(found, str):
                message = f"{label}, line {line_number}: {found}; correct it."
                problems.append(Problem("malformed box", message, label, number))
            else:
                lines.append(_Line(label, line_number, number, known, *found))
    taken = _kind(lines, about, kind, folder, problems)
    for entry in lines:
        made_of = _annotation(entry, taken, about.point_numbers)
        if isinstance(made_of, str):
            message = f"{entry.path}, line {entry.number}: {made_of}; correct it."
            problems.append(Problem("malformed box", message, entry.path, entry.image_id))
        else:
            made.add(entry.image_id, entry.category, **made_of)
    used = {a["category_id"] for a in made.annotations}
    if used - about.names.keys():
        where = about.path or f"data.yaml or classes.txt in {folder} or above it"
        text = f"{folder}: {len(used - about.names.keys())} classes have no name in {where}; "
        text += "they are called by their numbers."
        problems.append(Problem("class without a name", text, folder, is_note=True))
    numbers = sorted(used | about.names.keys())
    content = made.content({n: about.names.get(n, str(n)) for n in numbers})
    return BoxFile(folder, "yolo", content, digest.hexdigest(), problems)


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    image_id: int
    size: tuple[int, int]
    category: int
    values: list[float]


def _labels(folder: Path) -> dict[str, Path]:
    """Text files that hold boxes, by the path that their picture has."""
    labels = {}
    for name in walk_files(folder):
        path = Path(name)
        if path.suffix.lower() != ".txt" or path.name.lower() in _NOT_LABELS:
            continue
        if path.name.lower().startswith(("readme", "license")):
            continue
        labels[_key(name, "labels")] = folder / name
    return labels


def _key(name: str, skipped: str) -> str:
    path = Path(name)
    parts = path.with_suffix("").parts if path.name else ()
    return "/".join(part for part in parts if part not in (skipped, "images"))


def _assign(
    pictures: list[str], labels: dict[str, Path]
) -> tuple[dict[str, Path], dict[Path, list[str]]]:
    """Each picture's file, and the files that more than one picture claims."""
    by_key: dict[str, list[str]] = {}
    for picture in pictures:
        by_key.setdefault(_key(picture, "labels"), []).append(picture)
    own: dict[str, Path] = {}
    twice: dict[Path, list[str]] = {}
    for key, names in by_key.items():
        path = labels.get(key)
        if path is None:
            continue
        if len(names) > 1:
            twice[path] = names
        else:
            own[names[0]] = path
    return own, twice


def _numbers(line: str) -> tuple[int, list[float]] | str:
    """(class, numbers) of one line, or what is wrong with it."""
    words = line.split()
    category = _whole(words[0])
    try:
        values = [float(word) for word in words[1:]]
    except ValueError:
        values = [math.nan]
        category = None
    if category is None or category < 0:
        return f"{line!r:.60} is not a class number and numbers"
    if not all(map(math.isfinite, values)):
        return f"{line!r:.60} holds a number that is NaN or infinite"
    if any(abs(value) > _LARGEST_NUMBER for value in values):
        return f"{line!r:.60} holds a number that no share of a picture can be"
    return category, values


def _whole(word: Any) -> int | None:
    """A whole number of text: ``3``, ``3.0``, ``3e0``."""
    try:
        value = float(word)
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else None
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(
    lines: list[_Line], about: Described, kind: Kind, folder: Path, problems: list[Problem]
) -> Kind:
    """What the long lines are; a note where that is not beyond doubt."""
    if kind != "auto":
        return kind
    if about.point_numbers:
        return "points"
    long = [line for line in lines if len(line.values) > 5]
    eight = [line for line in long if len(line.values) == 8]
    square = [line for line in eight if _is_rectangle(line)]
    turned = [line for line in square if not _is_upright(line.values)]
    count = f"{len(eight)} of {len(long)}" if len(eight) < len(long) else f"all {len(long)}"
    if turned and len(square) == len(eight) and len(eight) >= _NEARLY_ALL * len(lines):
        text = f"{folder}: {count} lines of eight numbers are corners of turned boxes; "
        text += "they are boxes without masks (data.format=yolo-seg reads outlines)."
        problems.append(Problem("turned boxes", text, folder, is_note=True))
        return "turned"
    some = len(turned) >= max(1, _SOME * len(long))
    if eight and (len(eight) == len(lines) or some):
        text = f"{folder}: {count} outlines have four corners; if these are turned boxes, "
        text += "read them with data.format=yolo-obb (label: --boxes-format yolo-obb)."
        problems.append(Problem("outlines of four corners", text, folder, is_note=True))
    return "outlines"


def _is_upright(values: list[float]) -> bool:
    return len(set(values[0::2])) <= 2 and len(set(values[1::2])) <= 2


def _is_rectangle(line: _Line) -> bool:
    """Right angles at all four corners, in pixels."""
    width, height = line.size
    points = [(x * width, y * height) for x, y in zip(*(line.values[i::2] for i in (0, 1)))]  # noqa: B905
    for i in range(4):
        (ax, ay), (bx, by), (cx, cy) = (points[(i + k) % 4] for k in range(3))
        first, second = (bx - ax, by - ay), (cx - bx, cy - by)
        lengths = math.hypot(*first) * math.hypot(*second)
        dot = abs(first[0] * second[0] + first[1] * second[1])
        if lengths == 0 or dot > (_SQUARE + 2 / max(lengths**0.5, 1)) * lengths:
            return False
    return True


def _annotation(line: _Line, kind: Kind, point_numbers: int) -> dict[str, Any] | str:
    """Of one line, or what is wrong with it."""
    values, (width, height) = line.values, line.size
    count = len(values)
    is_points = kind == "points" and count == 4 + point_numbers
    if count in (4, 5) or is_points:
        x, y, w, h = values[:4]
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        entry: dict[str, Any] = {"bbox": box, "iscrowd": 0}
        if count == 5 and not is_points:
            if not 0 <= values[4] <= 1:
                return f"the sixth number {values[4]:g} is no score from 0 to 1"
            entry["score"] = values[4]
        return entry
    if kind == "points":
        wanted = f"a box (4) or a box with key points ({4 + point_numbers})"
        return f"{count} numbers after the class are not {wanted}"
    if count < 6 or count % 2:
        return f"{count} numbers after the class are no box (4) and no outline (6, 8, ...)"
    if kind == "boxes":
        return f"{count} numbers after the class are no box (4)"
    xs, ys = [v * width for v in values[0::2]], [v * height for v in values[1::2]]
    flat = [v for point in zip(xs, ys, strict=True) for v in point]
    entry = {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], "iscrowd": 0}
    if kind == "turned":
        if count != 8:
            return f"{count} numbers after the class are no four corners (8)"
        return entry | {"corners": flat}
    return entry | {"segmentation": [flat]}


def set_pictures(about: Described, split: str, pictures: Callable[[], list[Path]]) -> list[Path]:
    """The pictures of one entry of ``data.yaml``: below a folder, or named in a list.

    Args:
        about: the description.
        split: "train", "val" or "test".
        pictures: gives all pictures of the data set, absolute.

    Raises:
        DataError: an entry leads nowhere.
    """
    found: list[Path] = []
    for entry in about.sets.get(split, []):
        path = _place(about, entry)
        if path is None:
            raise DataError(
                f"{about.path}: {split} is {entry:.80}, which is not below {about.root}; "
                "correct it."
            )
        if path.is_dir():
            inside = path.resolve()
            found += [p for p in pictures() if p.resolve().is_relative_to(inside)]
        elif path.suffix.lower() == ".txt":
            for line in read_text(path).splitlines():
                if line.strip():
                    found.append(_listed(about, path, line.strip()))
        else:
            found.append(path)
    return sorted(dict.fromkeys(found))


def _place(about: Described, entry: str) -> Path | None:
    entry = entry.strip().replace("\\", "/")
    given = Path(os.path.expanduser(entry))
    # Roboflow writes ../train/images of a folder that lies beside the file.
    inner = Path(*[part for part in given.parts if part not in ("..", ".", "/")] or ["."])
    for path in (about.root / given, about.root / inner, given):
        if is_file(path) or is_folder(path):
            return path
    return None


def _listed(about: Described, listing: Path, line: str) -> Path:
    line = line.replace("\\", "/")
    parts = [part for part in Path(line).parts if part not in ("/", ".", "..")]
    for start in (about.root, listing.parent):
        for i in range(len(parts)):
            path = start.joinpath(*parts[i:])
            if is_file(path):
                return path
    return about.root / line

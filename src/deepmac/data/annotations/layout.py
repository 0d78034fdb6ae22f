"""What lies in a folder: which format, in which layout, and where each set is.

Every door (``fit``, ``validate``, ``predict``, ``check-data``, ``label``) looks here, and says what
was found and why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from deepmac.data.annotations import labelme, megadetector, open_images, panoptic, tfrecord, yolo
from deepmac.data.annotations.json_file import parse, read_file
from deepmac.data.annotations.naming import of_bytes, of_json
from deepmac.data.annotations.pictures import SUFFIXES, is_file, spelled, walk_files
from deepmac.data.annotations.text_file import read_text
from deepmac.errors import DataError

Format = Literal[
    "auto", "coco", "yolo", "yolo-boxes", "yolo-seg", "yolo-obb", "yolo-pose", "voc", "labelme",
    "megadetector", "open_images", "panoptic", "tfrecord",
]  # fmt: skip
FORMATS: tuple[str, ...] = get_args(Format)

_SPLITS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testdev"),
}
_UNREADABLE = "unreadable ("
_OTHER_TASKS = re.compile(r"(person_keypoints|captions|stuff|image_info|panoptic)_")
_HEAD = 1 << 22
_PARSED = 1 << 25  # json files up to this size are parsed to see what they are
_SAMPLE = 24
_NAMES_LIKE_ROBOFLOW = "_annotations.coco.json"


@dataclass(frozen=True)
class Place:
    """Where one set lies.

    Attributes:
        format: of its annotations.
        paths: annotation files (joined, where there are several), or their folder.
        image_dir: folder that file names start from.
        pictures: the set's own, relative to ``image_dir``, where a list or folder says which.
        stems: of the annotation files that belong to the set; None: all.
        why: what was found, for people.
        left_out: sentences on files that look like annotations and are not read.
    """

    format: str
    paths: tuple[Path, ...]
    image_dir: Path
    pictures: tuple[str, ...] | None = None
    stems: frozenset[str] | None = None
    why: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        root: the folder.
        format: of the annotations.
        why: the layout, and what gave it away.
        sets: "train", "val" and "test"; or "all" where nothing tells them apart.
    """

    root: Path
    format: str
    why: str
    sets: Mapping[str, Place] = field(default_factory=dict)

    def __str__(self) -> str:
        sets = ", ".join(self.sets)
        return f"{self.root}: {self.format}, {self.why} (sets: {sets})"


def find(root: Path, wanted: str = "auto") -> Found:
    """Look into a folder.

    Args:
        root: of the data set.
        wanted: one of ``FORMATS``; "auto" takes what is there.

    Raises:
        DataError: nothing, or more than one thing; the sentence says what was looked for.
    """
    if wanted not in FORMATS:
        raise DataError(f"there is no format {wanted!r}; there are {', '.join(FORMATS)}.")
    if not root.is_dir():
        raise DataError(f"the data set folder {root} does not exist; check data.root.")
    files = walk_files(root)
    kind = wanted.split("-")[0]
    looks = {
        "coco": _coco, "yolo": _yolo, "voc": _voc, "labelme": _labelme, "panoptic": _panoptic,
        "megadetector": _megadetector, "open_images": _open_images, "tfrecord": _tfrecord,
    }  # fmt: skip
    contents = _Contents(root, files)
    if kind != "auto":
        found = looks[kind](contents)
        if found is None:
            raise DataError(f"{root} holds nothing of the format {wanted}; {contents.advice()}")
        if "-" in wanted:
            places = {k: replace(p, format=wanted) for k, p in found.sets.items()}
            found = Found(root, wanted, found.why, places)
        return _explained(found, contents)
    every = [f for look in looks.values() if (f := look(contents)) is not None]
    if not every:
        raise DataError(f"{root} holds no annotations that are known; {contents.advice()}")
    if len(every) > 1 and every[0].format == "coco" and every[1].format == "panoptic":
        every = every[:1]  # COCO's own folder has both
    if len(every) > 1:
        listed = " and ".join(f"{f.format} ({f.why})" for f in every)
        words = " or ".join(f"data.format={f.format}" for f in every)
        raise DataError(f"{root} holds {listed}: say which with {words}.")
    return _explained(every[0], contents)


def _explained(found: Found, contents: _Contents) -> Found:
    """With the reason and what is left out in each place."""
    left_out = []
    if found.format in ("coco", "panoptic", "megadetector"):
        for name, what in contents.jsons.items():
            if what not in ("coco", "panoptic", "megadetector", "labelme"):
                broken = what.startswith(_UNREADABLE)
                task = _OTHER_TASKS.match(Path(name).name)
                if task and task[1] != found.format and not broken:
                    continue
                reason = what or "it has no lists images, annotations and categories"
                left_out.append(f"{contents.root / name} is not read: {reason}.")
    sets = {
        split: replace(place, why=str(found), left_out=tuple(left_out))
        for split, place in found.sets.items()
    }
    return Found(found.root, found.format, found.why, sets)


class _Contents:
    """The files of a folder, and what they turned out to be."""

    def __init__(self, root: Path, files: list[str]) -> None:
        self.root, self.files = root, files
        self._kinds: dict[str, str] | None = None

    def ending(self, *suffixes: str) -> list[str]:
        return [name for name in self.files if name.lower().endswith(suffixes)]

    @property
    def jsons(self) -> dict[str, str]:
        """Json files and what they hold; only the first of many like it is looked at closely."""
        if self._kinds is None:
            self._kinds = {}
            for name in self.ending(".json"):
                self._kinds[name] = json_kind(self.root / name)
        return self._kinds

    def of_kind(self, kind: str) -> list[str]:
        return [name for name, what in self.jsons.items() if what == kind]

    def advice(self) -> str:
        """What there is instead."""
        looked = "looked for COCO json, YOLO data.yaml or labels/, VOC xml, LabelMe json, "
        looked += "Open Images csv, MegaDetector json and TFRecords"
        for name in self.files[:50]:
            path = self.root / name
            if path.suffix.lower() in (".zip", ".gz", ".tgz", ".tar", ".xml", ".csv"):
                words = of_bytes(_head(path))
                if words:
                    return f"{looked}; {path} is {words}."
        for name, what in self.jsons.items():
            if what.startswith(_UNREADABLE):
                return what.removeprefix(_UNREADABLE).removesuffix(")")
            if what not in ("", "coco"):
                return f"{looked}; {self.root / name} is {what}."
        pictures = sum(name.lower().endswith(SUFFIXES) for name in self.files)
        return f"{looked}, found {len(self.files)} files ({pictures} pictures)."


def json_kind(path: Path) -> str:
    """coco, panoptic, labelme or megadetector; else what is known of it, or ""."""
    try:
        if path.stat().st_size > _PARSED:
            head = _head(path)
            if b'"segments_info"' in head:
                return "panoptic"
            ends = head + _tail(path)
            found = all(f'"{key}"'.encode() in ends for key in ("images", "annotations"))
            return "coco" if found or b'"file_name"' in head else ""
        content = parse(path, read_file(path))
    except (OSError, DataError) as error:
        return f"{_UNREADABLE}{error})" if isinstance(error, DataError) else ""
    return content_kind(content)


def content_kind(content: Any) -> str:
    """As :func:`json_kind` of parsed content."""
    if megadetector.is_one(content):
        return "megadetector"
    if labelme.is_one(content):
        return "labelme"
    if panoptic.is_one(content):
        return "panoptic"
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        return "coco" if isinstance(content.get("categories"), list) else ""
    return of_json(content) or ""


def split_of(name: str) -> str | None:
    """The set that a path names, in its file's name before its folders."""
    for part in reversed(Path(name).parts):
        words = [w for w in re.split(r"[^a-z]+", part.lower()) if w]
        for split, known in _SPLITS.items():
            if any(word in known for word in words):
                return split
    return None


def image_folder(
    root: Path, json_path: Path, split: str | None, *, but: Path | None = None
) -> Path:
    """The folder (``but`` one) that a json's file names start from: most of a sample lie in it."""
    names = sampled_names(json_path)
    own = json_path.parent
    words = [split] if split in _SPLITS else []
    if split == "val":
        words += ["valid", "validation"]
    tails = ["", "images", "data", "img", "JPEGImages"]
    for word in words:
        for year in ("2017", "2014", ""):
            tails += [f"{word}{year}", f"images/{word}{year}", f"{word}{year}/images"]
    tails += ["images/default", "images/Train", "images/Validation", "images/Test"]
    tails += [json_path.stem, f"images/{json_path.stem}"]
    candidates = list(dict.fromkeys(base / tail for base in (own, root, own.parent)
                                    for tail in tails))  # fmt: skip
    candidates = [c for c in candidates if c.is_dir() and c != but]
    exact = {c: sum(is_file(c / n) for n in names) for c in candidates}
    best = max(candidates, key=exact.__getitem__, default=own)
    if names and not exact.get(best):
        near = {c: sum(spelled(c, n) is not None for n in names) for c in candidates}
        best = max(candidates, key=near.__getitem__, default=own)
    return best


def sampled_names(json_path: Path) -> list[str]:
    """Some file names of a COCO json, without parsing all of it."""
    data = _head(json_path)
    text = data.decode("utf-8", "replace")
    pattern = re.compile(r'"file_name"\s*:\s*"((?:[^"\\]|\\.){1,400})"')
    found = pattern.findall(text) or pattern.findall(_tail(json_path).decode("utf-8", "replace"))
    step = max(1, len(found) // _SAMPLE)
    names = []
    for raw in found[::step][:_SAMPLE]:
        try:
            names.append(parse(json_path, f'"{raw}"'.encode()))
        except DataError:
            continue
    return names


def _coco(contents: _Contents) -> Found | None:
    root = contents.root
    names = contents.of_kind("coco")
    if any("instances" in Path(n).name for n in names):
        names = [n for n in names if not _OTHER_TASKS.match(Path(n).name)]
    if not names:
        return None
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(name) or "all", []).append(name)
    left_out = ""
    if len(groups) > 1 and "all" in groups:
        left_out = f"; not {', '.join(groups.pop('all'))}, whose names say no set"
    sets = {}
    for split in sorted(groups, key=("train", "val", "test", "all").index):
        own = groups[split]
        paths = tuple(root / name for name in own)
        sets[split] = Place("coco", paths, image_folder(root, paths[0], split))
    first = names[0]
    base = Path(first).name
    if base == _NAMES_LIKE_ROBOFLOW:
        why = "Roboflow's layout: _annotations.coco.json beside the pictures"
    elif base.startswith("instances_") and "default" in base:
        why = f"CVAT's layout: {first}"
    elif base.startswith("instances_"):
        why = f"COCO's layout: {first}"
    elif base == "result.json":
        why = "Label Studio's layout: result.json"
    elif base == "labels.json" or (base == "data.json" and (root / "data").is_dir()):
        why = f"FiftyOne's layout: {first}"
    else:
        why = f"json with images, annotations and categories: {first}"
    if any(len(p.paths) > 1 for p in sets.values()):
        why += f" and {len(names) - 1} more"
    return Found(root, "coco", why + left_out, sets)


def _panoptic(contents: _Contents) -> Found | None:
    names = contents.of_kind("panoptic")
    sets = {}
    for name in names:
        split = split_of(name) or "all"
        path = contents.root / name
        folder = image_folder(contents.root, path, split, but=path.with_suffix(""))
        sets[split] = Place("panoptic", (path,), folder)
    return Found(contents.root, "panoptic", f"COCO panoptic: {names[0]}", sets) if names else None


def _megadetector(contents: _Contents) -> Found | None:
    names = contents.of_kind("megadetector")
    if not names:
        return None
    root = contents.root
    folder = root / "images" if (root / "images").is_dir() else root
    place = Place("megadetector", tuple(root / name for name in names[:1]), folder)
    return Found(root, "megadetector", f"detections in {names[0]}", {"all": place})


def _labelme(contents: _Contents) -> Found | None:
    names = contents.of_kind("labelme")
    if not names:
        return None
    broken = [n for n, what in contents.jsons.items() if not what or what.startswith(_UNREADABLE)]
    names = sorted(names + broken)
    root = contents.root
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(str(Path(name).parent)) or "all", []).append(name)
    if "all" in groups and len(groups) > 1:
        groups = {"all": names}
    sets = {
        split: Place("labelme", tuple(root / name for name in own), root)
        for split, own in groups.items()
    }
    return Found(root, "labelme", f"{len(names)} json files with shapes", sets)


def _voc(contents: _Contents) -> Found | None:
    root = contents.root
    names = contents.ending(".xml")
    if not any(b"<annotation>" in _head(root / name, 2048) for name in names):
        return None
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    images = root / "JPEGImages" if (root / "JPEGImages").is_dir() else root
    listed = {}
    for kind in ("Main", "Segmentation", "."):
        for split in ("train", "val", "test"):
            path = root / "ImageSets" / kind / f"{split}.txt"
            if split not in listed and path.is_file():
                lines = read_text(path).splitlines()
                stems = {Path(n).stem for n in names}
                listed[split] = frozenset(
                    line.strip() if line.strip() in stems else line.split()[0]
                    for line in lines
                    if line.strip()
                )
        if listed:
            break
    if "train" in listed:
        sets = {k: Place("voc", (folder,), images, stems=stems) for k, stems in listed.items()}
        return Found(root, "voc", f"Pascal VOC's layout with ImageSets/{kind}", sets)
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(split_of(str(Path(name).parent)) or "all", set()).add(Path(name).stem)
    if len(groups) > 1 and "all" not in groups:
        sets = {}
        for split in groups:
            own = {Path(n).parts[0] for n in names if split_of(str(Path(n).parent)) == split}
            if len(own) == 1:
                place = root / own.pop()
                sets[split] = Place("voc", (place,), place)
        if len(sets) == len(groups):
            return Found(root, "voc", "Pascal VOC xml in a folder for each set", sets)
    return Found(root, "voc", f"{len(names)} xml files", {"all": Place("voc", (folder,), images)})


def _yolo(contents: _Contents) -> Found | None:
    root = contents.root
    texts = [n for n in contents.ending(".txt") if _is_label(root / n)]
    about = yolo.describe(root)
    own = about.path is not None and about.path.is_relative_to(root.absolute())
    if not texts:
        return None
    if own and about.sets and about.path is not None:
        pictures = [root / n for n in contents.files if n.lower().endswith(SUFFIXES)]
        sets = {}
        for split in about.sets:
            try:
                found = yolo.set_pictures(about, split, lambda: pictures)
            except DataError:
                if split != "test":
                    raise
                continue
            inside = _relative(found, root)
            if inside:
                sets[split] = Place("yolo", (root,), root, pictures=inside)
        if sets.keys() >= {"train", "val"} and sets["train"].pictures == sets["val"].pictures:
            sets = {"all": sets["train"]}
        if sets:
            return Found(root, "yolo", f"{about.path.name} with train and val", sets)
    groups: dict[str, list[str]] = {}
    for name in contents.files:
        if name.lower().endswith(SUFFIXES):
            groups.setdefault(split_of(str(Path(name).parent)) or "all", []).append(name)
    if "train" in groups and "all" not in groups:
        sets = {k: Place("yolo", (root,), root, pictures=tuple(v)) for k, v in groups.items()}
        return Found(root, "yolo", "text files, a folder for each set", sets)
    named = f", names in {about.path.name}" if own and about.path is not None else ""
    why = f"{len(texts)} text files of boxes{named}"
    return Found(root, "yolo", why, {"all": Place("yolo", (root,), root)})


def _relative(paths: list[Path], root: Path) -> tuple[str, ...]:
    base = root.resolve()
    names = []
    for path in paths:
        try:
            names.append(path.resolve().relative_to(base).as_posix())
        except ValueError:
            continue
    return tuple(sorted(set(names)))


def _open_images(contents: _Contents) -> Found | None:
    root = contents.root
    tables = [n for n in contents.ending(".csv") if open_images.is_table(root / n)]
    tables = [n for n in tables if b"MaskPath" not in _head(root / n, 400)]
    if not tables:
        return None
    groups: dict[str, list[str]] = {}
    for name in tables:
        groups.setdefault(split_of(name) or "all", []).append(name)
    sets = {}
    for split, own in groups.items():
        words = [split] if split != "all" else []
        words += ["validation"] if split == "val" else []
        tails = [*words, *(f"images/{w}" for w in words), *(f"{w}/data" for w in words), "images",
                 "data", ""]  # fmt: skip
        folder = next(root / t for t in tails if (root / t).is_dir())
        sets[split] = Place("open_images", (root / own[0],), folder)
    return Found(root, "open_images", f"Open Images' tables: {tables[0]}", sets)


def _tfrecord(contents: _Contents) -> Found | None:
    root = contents.root
    names = [name for name in contents.files if tfrecord.is_one(root / name)]
    if not names:
        return None
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(name) or "all", []).append(name)
    left_out = ""
    if len(groups) > 1 and "all" in groups:
        left_out = f"; not {', '.join(groups.pop('all'))}, whose names say no set"
    order = ("train", "val", "test", "all").index
    sets = {
        split: Place("tfrecord", tuple(root / name for name in groups[split]), root)
        for split in sorted(groups, key=order)
    }
    shards = sum(len(own) for own in groups.values())
    why = f"TFRecords of the Object Detection API: {names[0]}"
    why += f" and {shards - 1} more" if shards > 1 else ""
    return Found(root, "tfrecord", why + left_out, sets)


def _is_label(path: Path) -> bool:
    lines = _head(path, 4096).decode("utf-8", "replace").splitlines()
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        return "labels" in path.parts and path.suffix == ".txt"
    return bool(re.match(r"\s*[\d.eE+]+(\s+-?[\d.eE+-]+){4,}\s*$", first))


def _head(path: Path, size: int = _HEAD) -> bytes:
    try:
        if not is_file(path):
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _HEAD))
            return file.read()
    except OSError:
        return b""

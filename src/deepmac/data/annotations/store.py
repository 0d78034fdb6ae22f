"""Parsed annotation files in the cache, shared by all processes of a machine.

An entry is a folder: the table's columns, which are mapped into memory, and ``about.json``. It is
filled beside its place and renamed, so that it is whole or not there; of two processes that make
it, one wins. Where the cache cannot be written, every process parses for itself.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.index import CocoIndex
from deepmac.data.annotations.problems import Problem
from deepmac.data.annotations.records import Category
from deepmac.data.annotations.table import Table, TableImages, open_table, save_table
from deepmac.files import folder_draft, write_atomically

_KEPT = 24  # entries; the least recently used ones go
_HASHED_AT_ONCE = 1 << 22
_SETTLED_NS = 2_000_000_000  # since the last writing: times of change are coarse
_MOST_FILES = 2_000_000


_OTHERS = ("digests", "pictures")  # folders beside the entries


@dataclass(frozen=True)
class Parsed:
    """What a file gives, before its pictures are looked at."""

    categories: tuple[Category, ...]
    table: Table
    problems: tuple[Problem, ...]
    dropped: Mapping[str, int]
    own_ids: Mapping[int, str | int]

    def index(self, json_path: Path, image_dir: Path) -> CocoIndex:
        """With the folder of the pictures."""
        images = TableImages(self.table, image_dir)
        return CocoIndex(
            json_path,
            image_dir,
            self.categories,
            images,
            self.problems,
            dict(self.dropped),
            self.own_ids,
        )


class _About(msgspec.Struct):
    categories: list[tuple[int, str, str]]
    problems: list[tuple[str, str, str, int | None, int | None, bool]]
    dropped: dict[str, int]
    own_ids: dict[int, str | int]


def cache_folder() -> Path:
    """``DEEPMAC_CACHE``, else ``~/.cache/deepmac``."""
    configured = os.environ.get("DEEPMAC_CACHE")
    return (
        Path(os.path.expanduser(configured)) if configured else Path.home() / ".cache" / "deepmac"
    )


def place(json_path: Path, *settings: object) -> Path | None:
    """Where a file's entry is or would be; None where the file cannot be read.

    The key is the file's content, its path (messages name it), the settings and this code. The
    content's digest is remembered under what ``stat`` says of the file, for the next time.
    """
    try:
        status = json_path.stat()
        if not os.path.isfile(json_path):
            return None
        parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                 status.st_ctime_ns)  # fmt: skip
        stamp = hashlib.sha256(repr((str(json_path.absolute()), parts)).encode("utf-8", "replace"))
        known = cache_folder() / "annotations" / "digests" / stamp.hexdigest()
        try:
            digest = known.read_text("ascii")
        except (OSError, ValueError):
            digest = ""
        if len(digest) != 64:
            digest = _digest(json_path)
            _put(known, digest)
    except OSError:
        return None
    identity = repr((_rules(), str(json_path), settings, digest))
    key = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
    return cache_folder() / "annotations" / key


def place_of_files(folders: Iterable[Path], files: Iterable[Path], *settings: str) -> Path | None:
    """The entry's place of a set that many files make: all below folders, and some more.

    The key is every file's name, size and time of change. None where one of them was written so
    lately that another writing might not show.
    """
    lines = []
    newest = 0
    try:
        for folder in dict.fromkeys(folders):
            for root, inner, names in os.walk(folder, followlinks=True):
                inner[:] = [name for name in inner if not name.startswith(".")]
                lines += [os.path.join(root, name) for name in names if not name.startswith(".")]
                if len(lines) > _MOST_FILES:
                    return None
        lines += map(str, files)
        digest = hashlib.sha256(repr((_rules(), settings)).encode("utf-8", "replace"))
        for name in sorted(set(lines)):
            status = os.stat(name)
            newest = max(newest, status.st_mtime_ns)
            told = f"{name}\0{status.st_size} {status.st_mtime_ns} {status.st_ino}\n"
            digest.update(told.encode("utf-8", "surrogatepass"))
    except (OSError, ValueError):
        return None
    if newest > time.time_ns() - _SETTLED_NS:
        return None
    return cache_folder() / "annotations" / digest.hexdigest()


class CheckedFiles:
    """Which pictures of a set have been looked at and found sound, as they are now.

    Args:
        identity: of the check: which pictures, of which sizes, how closely.
        count: pictures.
    """

    def __init__(self, identity: str, count: int) -> None:
        key = hashlib.sha256(repr((_rules(), identity)).encode("utf-8", "replace")).hexdigest()
        self._path = cache_folder() / "annotations" / "pictures" / f"{key}.npy"
        self.stamps: NDArray[np.int64] = np.full((count, 3), -1, np.int64)
        self.names: dict[int, str] = {}
        try:
            stamps = np.load(self._path, allow_pickle=False)
            names = self._path.with_suffix(".json").read_bytes()
            if stamps.shape == (count, 3) and stamps.dtype == np.int64:
                self.names = msgspec.json.decode(names, type=dict[int, str])
                self.stamps = stamps
        except (OSError, ValueError, EOFError, msgspec.MsgspecError):
            pass
        self._begun = time.time_ns()
        self._changed = False

    def is_known(self, position: int, stamp: tuple[int, int, int] | None) -> bool:
        """Whether a picture was sound when it had this stamp."""
        return stamp is not None and tuple(self.stamps[position].tolist()) == stamp

    def remember(self, position: int, stamp: tuple[int, int, int] | None) -> None:
        """A picture is sound; one that was written just now may yet be written again."""
        if stamp is not None and stamp[1] < self._begun - _SETTLED_NS:
            self.stamps[position] = stamp
            self._changed = True

    def keep(self, names: Mapping[int, str]) -> None:
        """Write what was remembered, with the names under which some pictures were found."""
        if not self._changed:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, self.stamps, allow_pickle=False)
            write_atomically(self._path.with_suffix(".json"), msgspec.json.encode(dict(names)))
            write_atomically(self._path, content.getvalue())
            files = sorted(self._path.parent.glob("*.npy"), key=lambda p: p.stat().st_mtime)
            for old in files[:-_KEPT]:
                old.unlink(missing_ok=True)
                old.with_suffix(".json").unlink(missing_ok=True)
        except (OSError, ValueError):
            pass


def load(place: Path) -> Parsed | None:
    """The entry at a place; None where there is none that is whole."""
    try:
        about = msgspec.json.decode((place / "about.json").read_bytes(), type=_About)
        table = open_table(place)
        os.utime(place / "about.json")
    except PermissionError:
        pass  # another user's cache: used all the same
    except (OSError, ValueError, msgspec.MsgspecError, EOFError):
        return None
    return Parsed(
        tuple(Category(*entry) for entry in about.categories),
        table,
        tuple(Problem(k, m, Path(f), i, a, n) for k, m, f, i, a, n in about.problems),
        about.dropped,
        about.own_ids,
    )


def keep(place: Path, parsed: Parsed) -> Parsed:
    """Write an entry; returns it as the others will see it, or as it was where that fails."""
    about = _About(
        [(c.id, c.name, c.supercategory) for c in parsed.categories],
        [
            (p.kind, p.message, str(p.file), p.image_id, p.annotation_id, p.is_note)
            for p in parsed.problems
        ],
        dict(parsed.dropped),
        dict(parsed.own_ids),
    )
    try:
        with folder_draft(place, sync=False) as draft:
            save_table(parsed.table, draft)
            (draft / "about.json").write_bytes(msgspec.json.encode(about))
            if place.exists():  # damaged, or another process was faster: either way ours will do
                shutil.rmtree(place, ignore_errors=True)
    except (OSError, ValueError):  # ValueError: text that is no UTF-8
        pass
    _sweep(place)
    return load(place) or parsed


@cache
def _rules() -> str:
    """A digest of the code that reads annotations: with it, entries of other code are no longer
    found, whatever has changed in it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sweep(newest: Path) -> None:
    """Remove the entries and drafts that were not used for longest."""
    try:
        entries = [e for e in newest.parent.iterdir() if e.name not in _OTHERS and e != newest]
        entries.sort(key=lambda e: e.stat().st_mtime if e.name.startswith(".") else
                     (e / "about.json").stat().st_mtime, reverse=True)  # fmt: skip
    except OSError:
        return
    for old in entries[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _put(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError:
        pass

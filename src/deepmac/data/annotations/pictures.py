"""The pictures of a folder: which there are, how large they are, how their names are spelled."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

from deepmac.data.file_parts import part_of
from deepmac.data.images import ImageFileError, image_size
from deepmac.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif")


def list_pictures(folder: Path) -> list[str]:
    """Paths of all pictures below a folder, relative to it with ``/``, sorted.

    Hidden files and folders are left out.

    Raises:
        DataError: it does not exist or holds none.
    """
    require_folder(folder)
    found = [name for name in walk_files(folder) if name.lower().endswith(SUFFIXES)]
    if not found:
        raise DataError(f"the image folder {folder} holds no pictures; check the path.")
    return found


def walk_files(folder: Path) -> list[str]:
    """Paths of all regular files below a folder, relative to it with ``/``, sorted.

    What systems leave behind is passed over: hidden files and folders (``._a.jpg``, ``.git``) and
    Mac archives' ``__MACOSX``. Links are followed; each real folder is visited once.
    """
    found = []
    visited: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        try:
            status = os.stat(root)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        inner = Path(root).relative_to(folder)
        found += [(inner / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def require_folder(folder: Path) -> None:
    """Raise DataError unless the image folder is there."""
    if not is_folder(folder):
        raise DataError(f"the image folder {folder} does not exist; check the path.")


def is_file(path: Path) -> bool:
    """``Path.is_file`` that also takes names that no file can have, and parts of files."""
    try:
        return path.is_file() or part_of(path) is not None
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """``Path.is_dir`` that also takes names that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def spelled(folder: Path, name: str) -> str | None:
    """The name under which a picture lies in a folder; None where it does not.

    Files that went through other systems name their pictures with ``\\``, as an address
    (``my%20photo.jpg``), in another Unicode form or ending, or from another root. The spelling is
    tried as it is, then mended, then without its first folders one by one.
    """
    return next((n for n in _spellings(name) if is_file(folder / n)), None)


def _spellings(name: str) -> Iterator[str]:
    plain = [name]
    plain += [name.replace("\\", "/")] if "\\" in name else []
    plain += [unquote(n) for n in plain if "%" in n]
    plain = list(dict.fromkeys(n for n in plain if n and "\0" not in n))
    for form in ("NFC", "NFD"):
        plain += [unicodedata.normalize(form, n) for n in plain if not n.isascii()]
    yield from plain
    for n in plain:
        stem, dot, ending = n.rpartition(".")
        if dot and len(ending) < 5:
            yield from (f"{stem}.{other}" for other in (ending.lower(), ending.upper()))
    for n in plain:
        parts = [part for part in n.split("/") if part not in ("", ".", "..")]
        if n.startswith("/") or len(parts) > 1 or ".." in n:
            yield from ("/".join(parts[i:]) for i in range(len(parts)))


def picture_size(folder: Path, name: str) -> tuple[int, int]:
    """(width, height) of a picture, EXIF rotation applied, however its name is spelled.

    Raises:
        ImageFileError: there is none, or it is none.
    """
    return image_size(folder / (spelled(folder, name) or name))


def picture_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | ImageFileError]:
    """(width, height) of every picture, EXIF rotation applied, or why there is none."""

    def size(path: Path) -> tuple[int, int] | ImageFileError:
        try:
            return image_size(path)
        except ImageFileError as error:
            return error

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(size, paths, chunksize=64))

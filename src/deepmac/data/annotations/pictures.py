"""The pictures of a folder: which there are, how large they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deepmac.data.images import ImageFileError, image_size
from deepmac.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif")


def list_pictures(folder: Path) -> list[str]:
    """Paths of all pictures below a folder, relative to it with ``/``, sorted.

    Raises:
        DataError: it does not exist or holds none.
    """
    require_folder(folder)
    found = []
    for root, _, names in os.walk(folder, followlinks=True):
        inner = Path(root).relative_to(folder)
        found += [(inner / n).as_posix() for n in names if n.lower().endswith(SUFFIXES)]
    if not found:
        raise DataError(f"the image folder {folder} holds no pictures; check the path.")
    return sorted(found)


def require_folder(folder: Path) -> None:
    """Raise DataError unless the image folder is there."""
    if not folder.is_dir():
        raise DataError(f"the image folder {folder} does not exist; check the path.")


def picture_sizes(paths: Sequence[Path]) -> list[tuple[int, int] | ImageFileError]:
    """(width, height) of every picture, EXIF rotation applied, or why there is none."""

    def size(path: Path) -> tuple[int, int] | ImageFileError:
        try:
            return image_size(path)
        except ImageFileError as error:
            return error

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(size, paths, chunksize=64))

"""Pictures that lie inside a larger file: their path goes on below it.

``train.tfrecord-00000-of-00010/@4711+90210/cat.jpg`` is the 90,210 bytes from byte 4711 of that
record file, a picture that is called ``cat.jpg``. Nothing is unpacked, and what reads a picture's
path need not know.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_PLACE = re.compile(r"@(\d{1,18})\+(\d{1,10})")
_INNER = re.compile(r"/@\d{1,18}\+\d{1,10}/")


class FilePart(NamedTuple):
    """Some bytes of a file.

    Attributes:
        file: that they lie in.
        offset: of the first, from the file's beginning.
        size: how many.
    """

    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes; fewer where the file ends before.

        Raises:
            OSError: the file cannot be read.
        """
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def part_name(file: str, offset: int, size: int, name: str) -> str:
    """The name of a part of a file, with ``name`` for people at its end."""
    inner = "/".join(word for word in name.split("/") if word not in ("", ".", "..")) or "picture"
    return f"{file}/@{offset}+{size}/{inner}"


def part_of(path: Path) -> FilePart | None:
    """What a path below a file stands for; None for every other path."""
    for number, word in enumerate(path.parts):
        found = _PLACE.fullmatch(word)
        if found and number:
            file = Path(*path.parts[:number])
            try:
                is_file = file.is_file()
            except (OSError, ValueError):
                is_file = False
            return FilePart(file, int(found[1]), int(found[2])) if is_file else None
    return None


def stamp_of(path: str) -> tuple[int, int, int] | None:
    """Size, time of change and number of a file, or of the file that a part lies in.

    Two equal stamps mean that nobody has written to it meanwhile; None: it is not there.
    """
    try:
        try:
            status = os.stat(path)
        except NotADirectoryError:
            inner = _INNER.search(path)
            if inner is None:
                return None
            status = os.stat(path[: inner.start()])
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def own_name(name: str) -> str:
    """What people call it: without the file around it, if there is one."""
    words = name.split("/")
    for number, word in enumerate(words[1:-1], start=1):
        if _PLACE.fullmatch(word):
            return "/".join(words[number + 1 :])
    return name

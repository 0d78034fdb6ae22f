"""One file of a sharded set: annotations of some images as columns, then their encoded pictures.

Layout: eight bytes of magic, the header's length (uint64, little-endian), the header (JSON),
columns at multiples of 64 bytes, and from ``head`` on the pictures. The header says where each
column lies and what the digest of all pictures is; the digest of everything before them, the head,
stands in the set's table of chunks.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac.data.annotations.records import ImageRecord
from deepmac.data.annotations.table import COLUMNS, Table, pack
from deepmac.errors import DataError

MAGIC = b"DMCHUNK1"
OWN_COLUMNS = {
    "number": "i8",  # place of an image in the set that was sharded
    "picture_end": "i8",  # of an image's file, from the head's end on
}
_ALIGNED = 64


def encode_chunk(
    records: Sequence[ImageRecord], numbers: Sequence[int], pictures: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """A chunk's head and its pictures.

    Args:
        records: its images.
        numbers: their places in the set that is sharded.
        pictures: their files.
    """
    table = pack(records)
    columns: dict[str, NDArray[Any]] = {name: getattr(table, name) for name in COLUMNS}
    columns["number"] = np.array(numbers, "i8")
    columns["picture_end"] = np.cumsum([len(picture) for picture in pictures], dtype="i8")
    body = b"".join(pictures)
    header: dict[str, Any] = {
        "images": len(records),
        "body": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "columns": {},
    }
    kinds = COLUMNS | OWN_COLUMNS
    place = 0
    for name, values in columns.items():
        header["columns"][name] = [kinds[name], list(values.shape), place]
        place += -(-values.nbytes // _ALIGNED) * _ALIGNED
    text = json.dumps(header, separators=(",", ":")).encode()
    start = len(MAGIC) + 8 + len(text)
    text += b" " * (-start % _ALIGNED)
    head = bytearray(MAGIC + struct.pack("<Q", len(text)) + text)
    for name, values in columns.items():
        head += np.ascontiguousarray(values, dtype=kinds[name]).tobytes()
        head += bytes(-len(head) % _ALIGNED)
    return bytes(head), body


class Chunk:
    """A chunk that is read.

    Args:
        content: of the file, or of its head alone.
        name: for messages.

    Raises:
        DataError: it is no chunk, or cut off.
    """

    def __init__(self, content: bytes | mmap.mmap, name: str) -> None:
        self.name = name
        self._content = content
        try:
            self._read()
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise damaged(name) from error

    @classmethod
    def open(cls, path: Path, name: str) -> Chunk:
        """A file of this machine, mapped into memory.

        Raises:
            OSError: it cannot be read.
            DataError: it is no chunk, or cut off.
        """
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise damaged(name)
            chunk = cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), name)
        if len(chunk._content) != chunk.head + chunk.header["body"]:
            raise damaged(name)
        return chunk

    def picture(self, row: int) -> bytes:
        """The file of one image."""
        start = int(self._ends[row - 1]) if row else 0
        return self._content[self.head + start : self.head + int(self._ends[row])]

    def head_digest(self) -> bytes:
        """SHA-256 of the head."""
        return hashlib.sha256(memoryview(self._content)[: self.head]).digest()

    def check_pictures(self) -> None:
        """Raise DataError unless the pictures are those that were written."""
        found = hashlib.sha256(memoryview(self._content)[self.head :]).hexdigest()
        if found != self.header["sha256"]:
            raise damaged(self.name)

    def _read(self) -> None:
        content = self._content
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError("magic")
        (length,) = struct.unpack("<Q", content[len(MAGIC) : len(MAGIC) + 8])
        start = len(MAGIC) + 8 + length
        self.header: dict[str, Any] = json.loads(content[len(MAGIC) + 8 : start])
        columns: dict[str, NDArray[Any]] = {}
        self.head = start
        for name, kind in (COLUMNS | OWN_COLUMNS).items():
            stored, shape, place = self.header["columns"][name]
            if stored != kind:
                raise ValueError(name)
            count = int(np.prod(shape))
            values = np.frombuffer(content, kind, count, start + place)
            columns[name] = values.reshape(shape)
            end = start + place + values.nbytes
            self.head = max(self.head, -(-end // _ALIGNED) * _ALIGNED)
        self.number: NDArray[np.int64] = columns.pop("number")
        self._ends: NDArray[np.int64] = columns.pop("picture_end")
        self.table = Table(columns)


def damaged(name: str) -> DataError:
    """For a chunk that is not what was written."""
    return DataError(f"{name} is damaged or no chunk of this set: shard the data again")

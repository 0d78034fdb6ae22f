"""TensorFlow 2 checkpoints (``PREFIX.index``, ``PREFIX.data-00000-of-00001``) without TensorFlow.

The index is a sorted table from variable names to ``BundleEntryProto``; the data files hold the
raw bytes. Every checksum is checked, every size is bounded by that of the files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmac.convert.sorted_table import read_sorted_table
from deepmac.errors import UserError
from deepmac.protobuf.crc32c import crc32c, mask
from deepmac.protobuf.wire import WireError, read_fields, read_varint, signed

_MAX_INDEX = 1 << 25
_STRING = 7
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 4: np.dtype("u1"),
    5: np.dtype("<i2"), 6: np.dtype("i1"), 9: np.dtype("<i8"), 10: np.dtype("?"),
    14: np.dtype("<u2"), 17: np.dtype("<u2"), 19: np.dtype("<f2"), 22: np.dtype("<u4"),
    23: np.dtype("<u8"),
}  # fmt: skip
_BFLOAT16 = 14


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: TensorFlow's number of the type.
        shape: of the tensor.
        shard: which data file.
        offset: of its first byte there.
        size: in bytes.
        checksum: masked CRC-32C of these bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class TensorBundle:
    """An open checkpoint.

    Args:
        prefix: path of the checkpoint without ``.index``.

    Attributes:
        entries: by variable name.

    Raises:
        UserError: missing files, or an index that is damaged or contradicts the data files.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        index = prefix.with_name(prefix.name + ".index")
        try:
            if index.stat().st_size > _MAX_INDEX:
                raise WireError(f"it has more than {_MAX_INDEX} bytes")
            table = read_sorted_table(index.read_bytes())
            shards = _read_header(table.pop(b"", None))
            self.entries = {_name(key): _read_entry(value) for key, value in table.items()}
        except OSError as error:
            raise UserError(
                f"the checkpoint index {index} cannot be read ({error.strerror}): give the folder "
                "that holds the .index and .data files"
            ) from error
        except WireError as error:
            raise UserError(
                f"the checkpoint index {index} is damaged: {error}; download or copy it again"
            ) from error
        self._files = [
            prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}") for i in range(shards)
        ]
        self._check_extents()

    def read(self, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
        """The tensors whose name is ``wanted``; strings are checked and left out.

        Returns:
            Arrays in TensorFlow's layout; bfloat16 as float32.

        Raises:
            UserError: the bytes contradict their checksum, or a type that no array has.
        """
        arrays = {}
        # In file order, so that a disk reads straight through.
        chosen = sorted(
            (entry.shard, entry.offset, name)
            for name, entry in self.entries.items()
            if wanted(name)
        )
        for _, _, name in chosen:
            entry = self.entries[name]
            raw = self._bytes(name, entry)
            if entry.dtype == _STRING:
                self._check_strings(name, entry, raw)
                continue
            if crc32c_masked(raw) != entry.checksum:
                raise self._damaged(name)
            array = np.frombuffer(raw, dtype=_DTYPES[entry.dtype]).reshape(entry.shape)
            if entry.dtype == _BFLOAT16:
                array = (array.astype(np.uint32) << 16).view(np.float32)
            arrays[name] = array
        return arrays

    def _check_extents(self) -> None:
        """Every tensor lies within its file, has the size of its shape, and overlaps no other."""
        sizes = []
        for path in self._files:
            try:
                sizes.append(os.stat(path).st_size)
            except OSError as error:
                raise UserError(
                    f"the checkpoint's data file {path} cannot be read ({error.strerror}): copy "
                    "all files of the checkpoint"
                ) from error
        ends = [0] * len(sizes)
        for entry_name, entry in sorted(
            self.entries.items(), key=lambda item: (item[1].shard, item[1].offset)
        ):
            if entry.dtype not in _DTYPES and entry.dtype != _STRING:
                raise UserError(
                    f"{entry_name} in {self.prefix}.index has the unknown type {entry.dtype}: "
                    "this is no checkpoint of TensorFlow 2, or it is damaged"
                )
            if entry.shard >= len(sizes) or entry.offset < ends[entry.shard]:
                raise self._damaged(entry_name)
            ends[entry.shard] = entry.offset + entry.size
            if ends[entry.shard] > sizes[entry.shard]:
                raise UserError(
                    f"{self._files[entry.shard]} ends before {entry_name}: it is cut off; "
                    "download or copy it again"
                )
            if entry.dtype != _STRING:
                expected = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
                if expected != entry.size:
                    raise self._damaged(entry_name)

    def _bytes(self, name: str, entry: Entry) -> bytes:
        try:
            with self._files[entry.shard].open("rb") as file:
                file.seek(entry.offset)
                raw = file.read(entry.size)
        except OSError as error:
            raise self._damaged(name) from error
        if len(raw) != entry.size:
            raise self._damaged(name)
        return raw

    def _check_strings(self, name: str, entry: Entry, raw: bytes) -> None:
        """Lengths as varints, their checksum, then the bytes; each part is summed differently."""
        try:
            position = total = crc = 0
            for _ in range(math.prod(entry.shape)):
                length, position = read_varint(raw, position)
                total += length
                crc = crc32c(length.to_bytes(4 if length < 1 << 32 else 8, "little"), crc)
        except WireError as error:
            raise self._damaged(name) from error
        stored = raw[position : position + 4]
        if mask(crc).to_bytes(4, "little") != stored or position + 4 + total != len(raw):
            raise self._damaged(name)
        if mask(crc32c(raw[position + 4 :], crc32c(stored, crc))) != entry.checksum:
            raise self._damaged(name)

    def _damaged(self, name: str) -> UserError:
        return UserError(
            f"the checkpoint {self.prefix} is damaged: the bytes of {name} are not those that its "
            "index describes; download or copy it again"
        )


def crc32c_masked(raw: bytes) -> int:
    """The checksum as entries carry it."""
    return mask(crc32c(raw))


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise WireError("a name is no text") from error


def _read_header(message: bytes | None) -> int:
    """The number of data files."""
    if message is None:
        raise WireError("it has no header")
    shards = endianness = 0
    for number, value in read_fields(message):
        if number == 1 and isinstance(value, int):
            shards = value
        elif number == 2 and isinstance(value, int):
            endianness = value
    if endianness:
        raise WireError("its numbers are big-endian")
    if not 1 <= shards <= 10_000:
        raise WireError(f"it names {shards} data files")
    return shards


def _read_entry(message: bytes) -> Entry:
    values = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    for number, value in read_fields(message):
        if number == 7:
            raise WireError("it has a partitioned variable, as only TensorFlow 1 wrote them")
        if number == 2 and isinstance(value, bytes):
            shape = _read_shape(value)
        elif number in values and isinstance(value, int):
            values[number] = signed(value)
        else:
            raise WireError("an entry has an unknown field")
    if min(values.values()) < 0:
        raise WireError("an entry has a negative number")
    return Entry(values[1], shape, values[3], values[4], values[5], values[6])


def _read_shape(message: bytes) -> tuple[int, ...]:
    sides = []
    for number, value in read_fields(message):
        if number != 2 or not isinstance(value, bytes):
            raise WireError("a shape is unknown")
        side = 0
        for inner, size in read_fields(value):
            if inner == 1 and isinstance(size, int):
                side = signed(size)
        sides.append(side)
    if len(sides) > 16 or any(side < 0 for side in sides):
        raise WireError("a shape is impossible")
    return tuple(sides)

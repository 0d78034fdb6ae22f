"""TFRecord files and the ``tf.train.Example`` messages in them.

A record is its length (8 bytes), the length's checksum, its bytes, and their checksum. Read here:
the ``tfrecord`` package compares no checksum and does not say where in the file a value lies.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepmac.protobuf.crc32c import masked_crc32c
from deepmac.protobuf.wire import WireError, read_spans, read_varint, signed

_HEAD, _TAIL = 12, 4
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3

Values = list[slice] | NDArray[np.float32] | list[int]
"""Of one feature: places of its byte strings in the record, or its numbers."""


class Record(NamedTuple):
    """One record.

    Attributes:
        number: from 0, in its file.
        offset: of its first byte in the file.
        data: its bytes.
    """

    number: int
    offset: int
    data: bytes


@dataclass
class Damage:
    """What is wrong with a file of records.

    Attributes:
        lost: numbers of the records whose bytes do not agree with their checksum.
        end: why reading ended before the file did; None where it did not.
    """

    lost: list[int] = field(default_factory=list)
    end: str | None = None


def begins_as_records(path: Path) -> bool:
    """Whether a file begins with a length and that length's checksum, or is empty."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return False
    return not head or (len(head) == _HEAD and _length(head) is not None)


def read_records(path: Path, damage: Damage) -> Iterator[Record]:
    """The records of a file, without the damaged ones.

    Args:
        path: of the file.
        damage: gets what is wrong.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = number = 0
        while position < size:
            head = data[position : position + _HEAD]
            length = _length(head) if len(head) == _HEAD else None
            if length is None:
                what = "is no TFRecord file" if not number else f"is damaged after record {number}"
                damage.end = f"{what} (byte {position:,})"
                return
            start = position + _HEAD
            if length > size - start - _TAIL:
                damage.end = f"is cut off in record {number + 1}"
                return
            content = data[start : start + length]
            stored = data[start + length : start + length + _TAIL]
            if masked_crc32c(content) == int.from_bytes(stored, "little"):
                yield Record(number, start, content)
            else:
                damage.lost.append(number)
            position = start + length + _TAIL
            number += 1


def read_example(data: bytes) -> dict[str, Values]:
    """The features of an ``Example`` by name.

    Raises:
        WireError: this is no such message.
    """
    found: dict[str, Values] = {}
    for outer, features in _messages(data, slice(0, len(data))):
        if outer != 1:
            continue
        for inner, entry in _messages(data, features):
            if inner != 1:
                continue
            name, feature = "", slice(0, 0)
            for key, value in _messages(data, entry):
                if key == 1:
                    name = data[value].decode("utf-8", "replace")
                elif key == 2:
                    feature = value
            found[name] = _values(data, feature)
    return found


def _messages(data: bytes, place: slice) -> Iterator[tuple[int, slice]]:
    for number, value in read_spans(data, place.start, place.stop):
        if isinstance(value, slice):
            yield number, value


def _values(data: bytes, feature: slice) -> Values:
    for kind, place in _messages(data, feature):
        if kind == _BYTES:
            return [value for number, value in _messages(data, place) if number == 1]
        if kind in (_FLOATS, _INTEGERS):
            floats: list[NDArray[np.float32]] = []
            integers: list[int] = []
            for number, value in read_spans(data, place.start, place.stop):
                if number != 1:
                    continue
                if kind == _FLOATS:
                    bits = value & 0xFFFFFFFF if isinstance(value, int) else 0
                    octets = data[value] if isinstance(value, slice) else bits.to_bytes(4, "little")
                    if len(octets) % 4:
                        raise WireError("a list of numbers is cut off")
                    floats.append(np.frombuffer(octets, "<f4"))
                elif isinstance(value, slice):
                    position = value.start
                    while position < value.stop:
                        one, position = read_varint(data, position)
                        integers.append(signed(one))
                    if position > value.stop:
                        raise WireError("a number is cut off")
                else:
                    integers.append(signed(value))
            return integers if kind == _INTEGERS else np.concatenate([np.zeros(0, "f4"), *floats])
    return []


def _length(head: bytes) -> int | None:
    """Of the record that begins so; None where the checksum says that none does."""
    if masked_crc32c(head[:8]) != int.from_bytes(head[8:], "little"):
        return None
    return int.from_bytes(head[:8], "little")

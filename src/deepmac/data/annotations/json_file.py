"""JSON of any size: parsed once, list entries left packed until each is looked at."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import msgspec

from deepmac.data.annotations.naming import not_json
from deepmac.errors import DataError

_decode = msgspec.json.Decoder().decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_sections = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Unpackable(Exception):
    """An entry that only shows when it is looked at that it cannot be decoded."""


def _unpacked(raw: msgspec.Raw) -> Any:
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unpackable from error


class PackedList(Sequence[Any]):
    """A list of a file whose entries are decoded one by one, each time they are asked for."""

    def __init__(self, raw: list[msgspec.Raw]) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, position: int) -> Any: ...
    @overload
    def __getitem__(self, position: slice) -> PackedList: ...
    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return PackedList(self.raw[position])
        return _unpacked(self.raw[position])

    def __iter__(self) -> Iterator[Any]:
        return map(_unpacked, self.raw)


def read_file(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no regular file (a pipe would hang)"
            raise DataError(f"{path} cannot be read: it is {kind}; check the path.")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"the annotation file {path} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"the annotation file {path} cannot be read ({reason}); check the path."
        ) from None


def parse(path: Path, data: bytes) -> Any:
    """The content of a JSON file as plain objects.

    UTF-8 with or without byte order mark, UTF-16 and UTF-32 are read; NaN and infinite numbers are
    taken as Python's own parser does.

    Raises:
        DataError: it is something else; the sentence names what.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return parse_leniently(path, data)


def parse_lists(path: Path, data: bytes, names: Sequence[str]) -> Any:
    """As :func:`parse`, but lists of the top level with these names come as ``PackedList``."""
    try:
        sections = _sections(data)
        packed = {k for k, raw in sections.items() if k in names and memoryview(raw)[:1] == b"["}
        return {
            key: PackedList(_split(raw)) if key in packed else _decode(raw)
            for key, raw in sections.items()
        }
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return parse_leniently(path, data)


def parse_leniently(path: Path, data: bytes) -> Any:
    """By Python's own parser, which takes more; DataError where it does not either."""
    try:
        return json.loads(data.decode(json.detect_encoding(data)))
    except (ValueError, RecursionError, UnicodeError) as error:
        raise not_json(path, data, error) from None

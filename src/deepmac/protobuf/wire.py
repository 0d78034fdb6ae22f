"""The two encodings below TensorFlow's files: protobuf's wire format, and Snappy."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are not what they should be; the text completes "is damaged: ..."."""


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits and the position behind it.

    Raises:
        WireError: the bytes end within it, or it is longer than any integer.
    """
    value = shift = 0
    while shift < 64:
        if position >= len(data):
            raise WireError("a number is cut off")
        octet = data[position]
        position += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value >= 1 << 64:
                break
            return value, position
        shift += 7
    raise WireError("a number has more than 64 bits")


def read_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message in order: number and value.

    Raises:
        WireError: this is no message.
    """
    for number, value in read_spans(data, 0, len(data)):
        yield number, data[value] if isinstance(value, slice) else value


def read_spans(data: bytes, start: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """As :func:`read_fields` of ``data[start:end]``, but for bytes the places where they lie.

    Raises:
        WireError: this is no message.
    """
    position = start
    while position < end:
        tag, position = read_varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = read_varint(data, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, position = read_varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise WireError(f"a field has the unknown wire type {kind}")
        if size > end - position:
            raise WireError("a field is cut off")
        place = slice(position, position + size)
        position += size
        yield tag >> 3, place if kind == _BYTES else int.from_bytes(data[place], "little")
    if position > end:
        raise WireError("a number is cut off")


def signed(value: int) -> int:
    """An int64 field, which the wire carries as an unsigned number."""
    return value - (1 << 64) if value >= 1 << 63 else value


def snappy_decompress(data: bytes, limit: int) -> bytes:
    """Undo Snappy's raw format.

    Raises:
        WireError: not that format, or more than ``limit`` bytes.
    """
    size, position = read_varint(data, 0)
    if size > limit:
        raise WireError(f"a compressed block claims {size} bytes")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        kind = tag & 3
        if kind == 0:  # a literal
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(_take(data, position, extra), "little")
                position += extra
            length += 1
            if len(out) + length > size:
                raise WireError("a compressed block is longer than it claims")
            out += _take(data, position, length)
            position += length
            continue
        if kind == 1:  # a copy with an 11-bit offset
            length = (tag >> 2 & 7) + 4
            offset = (tag >> 5) << 8 | _take(data, position, 1)[0]
            position += 1
        else:
            width = 2 if kind == 2 else 4
            length = (tag >> 2) + 1
            offset = int.from_bytes(_take(data, position, width), "little")
            position += width
        if not 0 < offset <= len(out) or len(out) + length > size:
            raise WireError("a compressed block copies from outside itself")
        start = len(out) - offset
        pattern = bytes(out[start : start + length])
        # A copy may reach into what it writes: a run of a repeated pattern.
        out += (pattern * (length // len(pattern) + 1))[:length]
    if len(out) != size:
        raise WireError("a compressed block is shorter than it claims")
    return bytes(out)


def _take(data: bytes, position: int, length: int) -> bytes:
    if length > len(data) - position:
        raise WireError("a compressed block is cut off")
    return data[position : position + length]
